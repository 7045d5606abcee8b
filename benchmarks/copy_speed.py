"""Copying photographs between folders, and from a zip into a bucket, against what people use.

The bucket is moto's S3 server, on the same cores: it takes most of the time of both contestants.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import measuring
import pictures
import processes
import tables

SERVER = """
import sys, time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
while True:
    time.sleep(60)
"""
UPLOAD = """
import sys, zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import boto3
archive, folder, bucket, endpoint = sys.argv[1:]
zipfile.ZipFile(archive).extractall(folder)
client = boto3.client("s3", endpoint_url=endpoint)
def upload(path):
    client.upload_file(str(path), bucket, path.name)
with ThreadPoolExecutor(8) as pool:
    list(pool.map(upload, sorted(Path(folder).iterdir())))
"""
AWS = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


@contextmanager
def server() -> Iterator[str]:
    """The address of an S3 server in a process of its own."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


class Contest:
    """Each run copies the same photographs to a place that is new."""

    def __init__(self, work: Path, number: int, endpoint: str) -> None:
        import boto3

        self.work, self.number, self.endpoint = work, number, endpoint
        self.folder = pictures.photographs(work, number, long_side=640)
        pictures.warm(self.folder)
        self.zip = work / f"photographs-{number}.zip"
        if not self.zip.exists():
            with zipfile.ZipFile(self.zip, "w") as archive:
                for path in sorted(self.folder.iterdir()):
                    archive.write(path, path.name)
        self.env = measuring.environment(work, AWS_ENDPOINT_URL=endpoint, **AWS)
        self.client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="benchmark",
            aws_secret_access_key="benchmark",
        )
        self.names = map(str, count())

    def bucket(self) -> str:
        """A bucket that is new."""
        name = f"run-{next(self.names)}"
        self.client.create_bucket(Bucket=name)
        return name

    def run(self, command: list[str | Path]) -> dict[str, float]:
        """Runs one contestant; removes what it wrote into the folder `to`."""
        done = processes.run(command, self.env)
        shutil.rmtree(self.work / "to", ignore_errors=True)
        return {"files_per_s": self.number / done.wall_s, "peak_mib": done.peak_mib}

    def contestants(self) -> dict[str, Any]:
        """What is compared, by name."""
        to = self.work / "to"
        return {
            "folder: vistadex copy": lambda: self.run(
                measuring.vistadex("copy", self.folder, to, "--json")
            ),
            "folder: cp -r": lambda: self.run(["cp", "-r", self.folder, to]),
            "zip to bucket: vistadex copy": lambda: self.run(
                measuring.vistadex("copy", self.zip, f"s3://{self.bucket()}", "--json")
            ),
            "zip to bucket: unzip, boto3 with 8 threads": lambda: self.run(
                [sys.executable, "-c", UPLOAD, self.zip, to, self.bucket(), self.endpoint]
            ),
        }


def main() -> None:
    """Compares in interleaved rounds."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--number", type=int, default=1000, help="photographs of about 640x480")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    here = measuring.machine()
    with measuring.work_folder(options.work) as work, server() as endpoint:
        contest = Contest(work, options.number, endpoint)
        found = measuring.interleaved(contest.contestants(), options.rounds)
    rows = [
        [name, *(median(one[key] for one in runs) for key in ("files_per_s", "peak_mib"))]
        for name, runs in found.items()
    ]
    tables.show(f"{options.number:,} photographs", ["", "files per s", "peak MiB"], rows)
    measuring.write_json(options, here, {"rounds": found})


if __name__ == "__main__":
    main()
