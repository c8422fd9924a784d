"""A configuration's words in the log: the line that clients look for, without secrets."""

from nydusd.config.model import Connection, mask_url


def backend_config_line(connection: Connection) -> str:
    """`backend config: CommonConfig {…}`, logged at INFO once for each remote backend opened.

    Clients look for `backend config: ` and `url: "…"` in it; the shape is that of nydus 2.x
    (nydus: docs/nydusd.md of those releases).
    """
    proxy = connection.proxy
    return (
        "backend config: CommonConfig { "
        f"proxy: ProxyConfig {{ url: {_quoted(proxy.url)}, ping_url: {_quoted(proxy.ping_url)}, "
        f"fallback: {_flag(proxy.fallback)}, check_interval: {proxy.check_interval} }}, "
        f"timeout: {connection.timeout}, connect_timeout: {connection.connect_timeout}, "
        f"retry_limit: {connection.retry_limit} }}"
    )


def _quoted(url: str) -> str:
    shown = "".join(
        each if each.isprintable() else ascii(each)[1:-1]
        for each in mask_url(url).replace("\\", "\\\\").replace('"', '\\"')
    )
    return f'"{shown}"'


def _flag(value: bool) -> str:
    return "true" if value else "false"
