"""Says in a line what a backend can do, as `manage.py backend check` prints it."""

from collections.abc import Mapping

from progrock.backends import ConfigError, Options, build
from progrock.backends.classes import ClassSpec
from progrock.backends.http.spec import HttpSpec
from progrock.trial.variables import missing


def abilities(options: Options) -> str:
    """What a backend does and does not do, in words."""
    spec = options.spec.http if isinstance(options.spec, ClassSpec) else options.spec
    told = [f"looked at every {options.interval:g} s"]
    if isinstance(options.spec, ClassSpec):
        told.insert(0, f"class {options.spec.path}")
    if isinstance(spec, HttpSpec) and spec.poll_many:
        told.append(f"up to {spec.poll_many.max} jobs in one request (poll_many)")
    if isinstance(spec, HttpSpec) and spec.fetch:
        told.append(f"a second request when it has {' or '.join(spec.fetch.on)} (fetch)")
    told.append("cancels" if options.cancels else "cannot cancel")
    told.append("tells its progress" if options.has_progress else "tells no progress")
    told.append(f"a start whose answer was lost is {'' if options.repeat else 'not '}sent again")
    told.append(f"{'browsers' if options.browser else 'only your code'} may start jobs")
    return ", ".join(told)


def trouble(options: Options, environ: Mapping[str, str], *, wanted: bool) -> str:
    """The variables that must be set before the table makes a backend; empty if it makes one now.

    With `wanted` a variable that is not set is an error. Raises ConfigError.
    """
    if absent := missing(options, environ):
        names = ", ".join(absent)
        if wanted:
            raise ConfigError(
                f"[{options.name}]", found=f"nothing for {names}", wanted="a value for each of them"
            )
        return f"still to be set: {names}"
    if wanted or isinstance(options.spec, HttpSpec):
        try:
            build(options, environ)
        except ConfigError:
            raise
        except Exception as error:  # a class of one's own may raise whatever it likes
            raise ConfigError(
                f"[{options.name}] class",
                found=f"{type(error).__name__}: {error}",
                wanted="a class that can be called with the options and the table's other keys",
            ) from error
    return ""
