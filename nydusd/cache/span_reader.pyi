from nydusd.cache.device import Device
from nydusd.rafs.records import Span

def read_spans(device: Device, spans: list[Span], following: list[Span] | None = None) -> bytes: ...
