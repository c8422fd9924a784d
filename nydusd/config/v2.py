"""Version 2 of the format: the model and its tables are one to one, in TOML and in JSON."""

from typing import Any

from nydusd.config.findings import Findings
from nydusd.config.model import Config
from nydusd.config.schema import read_section, write_section
from nydusd.config.sections import CONFIG

VERSION = 2


def read_v2(raw: object, findings: Findings) -> Config:
    """The configuration in *raw*, a parsed file of version 2; mistakes go to *findings*."""
    config: Config = read_section(CONFIG, raw, "", findings, VERSION)
    return config


def to_v2_dict(config: Config) -> dict[str, Any]:
    """*config* as plain tables of version 2, secrets included: `without_secrets` comes first."""
    return write_section(CONFIG, config)
