"""A real S3 from a package: moto's server in a process of its own, which checks signatures.

Started with `python -m tests.servers.s3`; prints its port, ends when its standard input does.
"""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType
from typing import NamedTuple

import boto3
from botocore.config import Config

from tests.disclosure import search

REGION = "us-east-1"
POLICY = """{"Version": "2012-10-17", "Statement": [
  {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}"""


class Keys(NamedTuple):
    """An access key that the server knows."""

    key_id: str
    secret: str


class S3Server:
    """`netloc` serves the objects that `put` was given to who signs with `keys`."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self.netloc = ""
        self.keys = Keys("", "")

    def __enter__(self) -> S3Server:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name if __spec__ else __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self.netloc = f"127.0.0.1:{int(self._process.stdout.readline())}"
        self._make_account()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def client(self, service: str, keys: Keys):
        """botocore's own client of this server."""
        return boto3.client(
            service,
            endpoint_url=f"http://{self.netloc}",
            region_name=REGION,
            aws_access_key_id=keys.key_id,
            aws_secret_access_key=keys.secret,
            config=Config(retries={"max_attempts": 0}, proxies={}),
        )

    def put(self, name: str, data: bytes) -> None:
        """Store *data* as the object *name*."""
        self.client("s3", self.keys).put_object(Bucket=self.bucket, Key=name, Body=data)

    def _make_account(self) -> None:
        anyone = Keys("anyone", "anything")
        iam = self.client("iam", anyone)
        iam.create_user(UserName="reader")
        iam.put_user_policy(UserName="reader", PolicyName="all", PolicyDocument=POLICY)
        key = iam.create_access_key(UserName="reader")["AccessKey"]
        self.keys = Keys(key["AccessKeyId"], key["SecretAccessKey"])
        for each in self.keys:
            search.learn(each)
        self.client("s3", anyone).create_bucket(Bucket=self.bucket)


SETUP_REQUESTS = 4  # of `_make_account`: only these are not asked for a signature


def main() -> None:
    """Serve until standard input ends."""
    import os

    os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = str(SETUP_REQUESTS)
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
