"""The shipped nginx configuration before a team's proxy, with an operator's lines changed."""

from __future__ import annotations

import re
from pathlib import Path

from tests.deploy.components import DEPLOY
from tests.deploy.front import write_main


def write_team_front(
    prefix: Path, *, port: int, behind: str, chain: Path, key: Path, access_log: str = "off"
) -> Path:
    """Into this folder, ready to be started: TLS on this port, before a proxy at HOST:PORT."""
    text = (DEPLOY / "nginx/team-proxy.conf").read_text("utf-8")
    shipped = dict(
        re.findall(r"(?m)^ *(listen|proxy_cache_path) \S+ ([^;]+);", text)
    )  # all but the first word
    ours = {
        "server": behind, "listen": f"127.0.0.1:{port} {shipped['listen']}", "server_name": "localhost",
        "ssl_certificate": chain, "ssl_certificate_key": key, "access_log": access_log,
        "proxy_cache_path": f"{prefix}/kept {shipped['proxy_cache_path']}",
    }  # fmt: skip
    for name, value in ours.items():
        text, count = re.subn(rf"(?m)^( *{name} )[^;\n]+; +# <-$", rf"\g<1>{value};", text)
        assert count == 1, name
    assert "# <-" not in text
    prefix.mkdir(exist_ok=True)
    (prefix / "countermark.conf").write_text(text, encoding="utf-8")
    return write_main(prefix)
