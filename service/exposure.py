"""Who can reach the service at all."""

from ipaddress import IPv6Address, ip_address

from service.api_keys import Keys
from service.settings import Settings


def open_doors(settings: Settings) -> str | None:
    """What the log should warn of: a service that others can reach, and that answers whoever asks."""
    if Keys(settings.api_keys) or is_loopback(settings.host):
        return None
    return (
        f"CONVOY_HOST={settings.host} can be reached from other machines, and without CONVOY_API_KEYS "
        "whoever reaches it may ask for predictions"
    )


def is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    if isinstance(address, IPv6Address) and address.ipv4_mapped:  # a caller by IPv4 of a socket for both
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
