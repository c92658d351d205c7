"""TLS to a target: its certificate is always checked, by the system's authorities or by a file of the operator's."""

import ssl

from services.errors import ConfigurationError


class UnusableCertificate(ConfigurationError):
    """A file of certificates or a key cannot be read."""

    reason = "unusable_certificate"


def tls_context(ca_file: str | None, certificate_file: str | None, key_file: str | None) -> ssl.SSLContext:
    """TLS 1.2 or later; `certificate_file` and `key_file` are what a target is shown that asks who is there.

    Raises:
        UnusableCertificate: naming the file.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if certificate_file is not None:
            context.load_cert_chain(certificate_file, key_file)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(filter(None, (ca_file, certificate_file, key_file)))
        raise UnusableCertificate(f"{files}: no certificates that can be used: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
