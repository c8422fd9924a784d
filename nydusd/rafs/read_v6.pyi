from typing import Self, final

from nydusd.base.mapping import Mapping
from nydusd.rafs.bootstrap import Bootstrap

@final
class BootstrapV6(Bootstrap):
    def __new__(cls, file: Mapping) -> Self: ...
    def check_root(self) -> None: ...
