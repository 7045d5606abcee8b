"""How S3 is reached: credentials, region and endpoint as botocore finds them, and signed requests.

Of botocore only the session is used: its clients cost half a second and 30 MB each.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.configprovider import ConfiguredEndpointProvider
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session
from botocore.session import Session
from botocore.utils import get_environ_proxies, percent_encode_sequence

from vistadex.errors import (
    SourceDeniedError,
    SourceError,
    SourceMissingError,
    SourceUnavailableError,
    UsageError,
)

if TYPE_CHECKING:
    from obstore.store import S3Credential

CONNECT_TIMEOUT_S = 5
CREDENTIALS_LIFE = timedelta(minutes=10)
"""After this time obstore asks for credentials again; botocore renews what expires within 15."""

REFUSALS = {
    "InvalidAccessKeyId": "the access key is unknown; check AWS_ACCESS_KEY_ID or AWS_PROFILE",
    "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY or AWS_PROFILE",
    "ExpiredToken": "the credentials have expired; renew them (aws sso login, AWS_SESSION_TOKEN)",
    "InvalidToken": "the session token is wrong; check AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": "this computer's clock is wrong; set it",
}
"""What a store says with status 403, as what to do; any other code is a lack of permission."""


@dataclass(frozen=True)
class Answer:
    """A store's answer to one request."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Access:
    """One bucket with what is needed to reach it."""

    def __init__(self, bucket: str, read_timeout_s: float) -> None:
        """Looks the settings up where the AWS tools do: environment, profile, config files, role.

        Raises: UsageError where they contradict each other; SourceDeniedError where the
            credentials they point at can't be had.
        """
        self.bucket = bucket
        # boto reads AWS_DEFAULT_REGION alone; every other AWS library reads AWS_REGION first.
        region = ("region", ["AWS_REGION", "AWS_DEFAULT_REGION"], None, None)
        session = Session(session_vars={"region": region})
        try:
            self.region: str = session.get_config_variable("region") or "us-east-1"
            self.endpoint = _configured_endpoint(session) or _aws_endpoint(self.region)
            self.ca_bundle: str | None = session.get_config_variable("ca_bundle")
        except BotoCoreError as error:
            raise UsageError(f"s3://{bucket}: {error}; check AWS_PROFILE and ~/.aws") from error
        try:
            self.credentials: Credentials | None = session.get_credentials()
        except BotoCoreError as error:
            raise SourceDeniedError(f"s3://{bucket}: no credentials: {error}") from error
        self._http = URLLib3Session(
            verify=self.ca_bundle or True,
            proxies=get_environ_proxies(self.endpoint),
            timeout=(CONNECT_TIMEOUT_S, read_timeout_s),
        )

    def provide(self) -> S3Credential:
        """The credentials of this moment, for obstore to sign with."""
        assert self.credentials is not None
        frozen = self.credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + CREDENTIALS_LIFE,
        }

    def get(self, key: str, query: Mapping[str, str] | None = None, byte_range: str = "") -> Answer:
        """The answer to GET of a key ("" for the bucket itself), signed if there are credentials.

        Raises: SourceError for anything but success.
        """
        headers = {"Range": byte_range} if byte_range else {}
        return self._ask("GET", key, query or {}, headers, b"")

    def put(self, key: str, body: bytes) -> Answer:
        """The answer to PUT of a whole object; the store checks its SHA-256.

        Raises: SourceError for anything but success.
        """
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        return self._ask("PUT", key, {}, {"x-amz-checksum-sha256": digest}, body)

    def _ask(
        self, method: str, key: str, query: Mapping[str, str], headers: dict[str, str], body: bytes
    ) -> Answer:
        place = f"s3://{self.bucket}/{key}" if key else f"s3://{self.bucket}"
        url = f"{self.endpoint}/{self.bucket}" + (f"/{quote(key, safe='/~')}" if key else "")
        if query:
            url += "?" + percent_encode_sequence(query)
        request = AWSRequest(method, url, headers=headers, data=body)
        try:
            if self.credentials is not None:
                frozen = self.credentials.get_frozen_credentials()
                S3SigV4Auth(frozen, "s3", self.region).add_auth(request)
        except BotoCoreError as error:
            raise SourceDeniedError(f"{place}: no credentials: {error}") from error
        try:
            response = self._http.send(request.prepare())
        except BotoCoreError as error:
            raise self.unavailable(place, type(error).__name__) from error
        answer = Answer(response.status_code, response.headers, response.content)
        if not 200 <= answer.status < 300:
            said = answer.body.decode("utf-8", "replace")
            raise self.refusal(place, answer.status, said, answer.headers)
        return answer

    def unavailable(self, place: str, why: str) -> SourceUnavailableError:
        """The error for a store that does not answer, or breaks off."""
        advice = "check the network, AWS_ENDPOINT_URL and AWS_REGION"
        return SourceUnavailableError(f"{place}: no answer from {self.endpoint} ({why}); {advice}")

    def refusal(
        self, place: str, status: int, body: str, headers: Mapping[str, str] | None = None
    ) -> SourceError:
        """The error for an answer that is no success, with what to do about it."""
        code = _field(body, "Code")
        region = (headers or {}).get("x-amz-bucket-region") or _field(body, "Region")
        if status >= 500 or status in (408, 429):
            return self.unavailable(place, f"status {status} {code}".rstrip())
        if status == 404 and code != "NoSuchBucket":
            return SourceMissingError(f"{place}: there is no such key")
        if status == 404:
            where = f"there is no bucket {self.bucket!r} at {self.endpoint}"
            advice = "check its name, and AWS_ENDPOINT_URL if the store is not AWS"
            return SourceMissingError(f"s3://{self.bucket}: {where}; {advice}")
        if region and region != self.region and status in (301, 307, 400):
            return SourceError(f"{place}: the bucket is in {region}; set AWS_REGION={region}")
        if status in (401, 403):
            return SourceDeniedError(f"{place}: {self._denial(code)}")
        return SourceError(
            f"{place}: {self.endpoint} answered with status {status} {code}".rstrip()
        )

    def _denial(self, code: str) -> str:
        if self.credentials is None:
            return (
                "access denied, and no credentials were found; "
                "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        rights = "s3:ListBucket, s3:GetObject; to write s3:PutObject"
        advice = f"these credentials lack the permission ({rights})"
        return f"access denied: {REFUSALS.get(code, advice)}"


def _configured_endpoint(session: Session) -> str | None:
    """AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or endpoint_url of the config file, in this order."""
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return None
    provider = ConfiguredEndpointProvider(
        full_config=session.full_config,
        scoped_config=session.get_scoped_config(),
        client_name="s3",
    )
    endpoint: str | None = provider.provide()
    return endpoint.rstrip("/") if endpoint else None


def _aws_endpoint(region: str) -> str:
    return f"https://s3.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")


def _field(xml: str, name: str) -> str:
    """The text of an element in a store's error; plain search, as errors are not always whole."""
    match = re.search(f"<{name}>([^<]*)</{name}>", xml)
    return match[1] if match else ""
