"""What the templates of our own pages need, and nobody else's."""

from datetime import datetime

from django import template
from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()


@register.filter
def moment(when: datetime) -> SafeString:
    """A time as a `<time>`, in the project's zone. JavaScript shows it in that of the reader."""
    when = timezone.make_aware(when) if timezone.is_naive(when) else when
    local = timezone.localtime(when)
    text = f"{formats.date_format(local, 'DATETIME_FORMAT')} {local.tzname()}"
    return format_html('<time datetime="{}">{}</time>', when.isoformat(), text)
