"""A mail server on loopback, for tests: it really speaks SMTP, with STARTTLS, TLS from the beginning, and passwords."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Office:
    """What a mail server does, and what came to it.

    Attributes:
        port: that it listens on.
        certificate: of it; whoever trusts it may talk to it.
        answers: by the first word of a line, what it answers instead of what is usual; it hangs up if that is empty.
        lines: that were said to it, those of mails apart.
        encrypted: whether each of these came encrypted.
        mails: that it took.
    """

    certificate: Path
    port: int = 0
    answers: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    mails: list[EmailMessage] = field(default_factory=list)

    def trusting(self) -> ssl.SSLContext:
        """Return the context of a client that trusts it."""
        return ssl.create_default_context(cafile=str(self.certificate))


class _Talk(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        office = self.server.office
        if self.server.tls_at_once:
            self._encrypt()
        self._say("220 ready")
        while line := self.rfile.readline().decode().strip():
            word = line.split(maxsplit=1)[0].upper()
            office.lines.append(word + line[len(word) :])
            office.encrypted.append(isinstance(self.connection, ssl.SSLSocket))
            if word in office.answers:
                if not office.answers[word]:
                    break
                self._say(office.answers[word])
            elif word == "EHLO":
                self._say("250-loopback\r\n250-AUTH PLAIN\r\n250 STARTTLS")
            elif word == "STARTTLS":
                self._say("220 go on")
                self._encrypt()
            elif word == "AUTH":
                good = base64.b64decode(line.split()[2]) == b"\0postman\0p@ss word"
                self._say("235 welcome" if good else "535 no")
            elif word == "DATA":
                self._say("354 go on")
                self._take()
            else:
                self._say("221 bye" if word == "QUIT" else "250 fine")
            if word == "QUIT":
                break

    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def _take(self) -> None:
        mail = b""
        while (line := self.rfile.readline()) != b".\r\n":
            mail += line.removeprefix(b".")
        message = message_from_bytes(mail, policy=default)
        assert isinstance(message, EmailMessage)
        self.server.office.mails.append(message)
        self._say("250 taken")

    def _say(self, words: str) -> None:
        self.wfile.write(words.encode() + b"\r\n")

    def _encrypt(self) -> None:
        self.connection = self.server.context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, office: Office, context: ssl.SSLContext, tls_at_once: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Talk)
        self.office, self.context, self.tls_at_once = office, context, tls_at_once

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that go away, for lack of trust or of patience."""


@contextmanager
def mail_server(folder: Path, *, tls_at_once: bool = False) -> Iterator[Office]:
    """Run a mail server while the block runs.

    Args:
        folder: for its certificate.
        tls_at_once: whether it encrypts from the beginning.
    """
    certificate, key = _certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    office = Office(certificate)
    with _Server(office, context, tls_at_once) as server:
        office.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield office
        finally:
            server.shutdown()
            thread.join()


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                crl_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files
