"""The line of a remote backend that clients search the log for."""

from nydusd.config.describe import backend_config_line
from nydusd.config.model import Connection, Proxy


def test_the_line_has_the_shape_of_the_2_2_page():
    assert backend_config_line(Connection()) == (
        'backend config: CommonConfig { proxy: ProxyConfig { url: "", ping_url: "", '
        "fallback: true, check_interval: 5 }, timeout: 5, connect_timeout: 5, retry_limit: 0 }"
    )


def test_the_line_is_one_line_without_passwords():
    connection = Connection(proxy=Proxy(url='http://u:UNSPOKEN@h/"\n', fallback=False), timeout=0)

    line = backend_config_line(connection)

    assert line.isprintable()
    assert r'url: "http://u:***@h/\"\n"' in line
    assert "fallback: false" in line
