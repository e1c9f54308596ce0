"""Templates: everything that is put into them is escaped, and a name that is not there is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from unmask.gateway.web import formats
from unmask.gateway.web.assets import Assets
from unmask.gateway.web.charts import legend_mark
from unmask.gateway.web.services import SiteSettings

_FOLDER: Final = Path(__file__).parent / "templates"


class Templates:
    """The templates of the site.

    Args:
        site: what the operator says of it.
        assets: that pages load.
    """

    def __init__(self, site: SiteSettings, assets: Assets) -> None:
        def money(micros: int) -> str:
            return formats.money(micros, site.currency)

        self._environment = Environment(
            loader=FileSystemLoader(_FOLDER),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.globals |= {"site": site, "asset": assets.path, "legend_mark": legend_mark}
        self._environment.filters |= {
            "money": money,
            "count": formats.count,
            "size": formats.size,
            "moment": formats.moment,
            "milliseconds": formats.milliseconds,
            "share": formats.percent,
            "paragraphs": formats.paragraphs,
        }

    def render(self, name: str, **values: Any) -> str:
        """Return a page.

        Raises:
            jinja2.UndefinedError: the template uses a name that it was not given.
        """
        return self._environment.get_template(name).render(**values)
