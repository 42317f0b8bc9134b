"""Certificates for one run: made when it begins, P-256, and kept with its other state."""

from .obtain import run

NAME = "bench.test"


def make(folder):
    """A certificate for the contenders, another one for the origin: it shows who has ended the TLS."""
    folder.mkdir(exist_ok=True)
    for kind in ("front", "origin"):
        certificate, key = folder / f"{kind}.crt", folder / f"{kind}.key"
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
             "-subj", f"/O={kind}/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}", "-keyout", key,
             "-out", certificate],
            folder / "openssl.log")
        # HAProxy wants both in one file.
        (folder / f"{kind}.pem").write_text(certificate.read_text() + key.read_text())
    return folder
