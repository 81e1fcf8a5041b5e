"""The template tags of ProgRock's own pages."""

from datetime import datetime

from django import template
from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()


@register.filter
def moment(when: datetime) -> SafeString:
    """A time as a `<time>` element in the project's zone. JavaScript turns it into the reader's."""
    when = timezone.make_aware(when) if timezone.is_naive(when) else when
    local = timezone.localtime(when)
    text = f"{formats.date_format(local, 'DATETIME_FORMAT')} {local.tzname()}"
    return format_html('<time datetime="{}">{}</time>', when.isoformat(), text)
