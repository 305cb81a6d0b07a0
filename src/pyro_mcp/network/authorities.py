"""Certificate authorities of the site that its guests are to trust besides those of their images: PYRO_CA_FILE.

Only certificates leave the file: a private key that stands beside them stays on the host.
"""

import re
import ssl
from pathlib import Path

from pyro_mcp.errors import InvalidRequest

FILE_BYTES_MOST = 1 << 20
AUTHORITIES_BYTES_MOST = 64 << 10  # as agent/trust has it
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]*-----END CERTIFICATE-----")
REMEDY = "Name a file of PEM certificates in PYRO_CA_FILE, or unset it."


def read_authorities(file: str) -> str:
    """The certificates in *file*, each PEM block ending in a newline; nothing when *file* is empty.

    Raises InvalidRequest when it cannot be read or holds no certificate that OpenSSL takes.
    """
    if not file:
        return ""
    name = f"the file of certificate authorities {file!r:.200}"
    try:
        with Path(file).expanduser().open("rb") as source:
            data = source.read(FILE_BYTES_MOST + 1)
    except (OSError, RuntimeError, ValueError) as error:  # the latter two: no such home, a NUL in the name
        cause = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(f"{name} cannot be read: {cause}", remedy=REMEDY) from error
    found = "".join(f"{block}\n" for block in CERTIFICATE.findall(data.decode(errors="replace")))
    if len(data) > FILE_BYTES_MOST or len(found) > AUTHORITIES_BYTES_MOST:
        raise InvalidRequest(
            f"{name} has more than {AUTHORITIES_BYTES_MOST} bytes of certificates",
            remedy="Guests trust what their image trusts anyway: name only the authorities of your own site.",
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=found)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidRequest(f"{name} has no certificate that can be used", remedy=REMEDY) from error
    return found
