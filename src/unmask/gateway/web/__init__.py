"""Pages: server-rendered, usable without JavaScript.

app = site(Services(site=SiteSettings(name="Unmask", base_url="https://example.org", ...), ...))
"""

from __future__ import annotations

from unmask.gateway.web.app import site
from unmask.gateway.web.services import Check, RequestRow, Services, SiteSettings, Trying, TryIt

__all__ = ["Check", "RequestRow", "Services", "SiteSettings", "TryIt", "Trying", "site"]
