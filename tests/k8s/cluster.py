"""A Kubernetes without containers: its own API server, etcd, controllers and scheduler as plain processes, and one node that kwok pretends."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from dtrain.cli.ports import free_ports
from tests.k8s.commands import BINARIES, Answer, run
from tests.support.certificates import Authority

_PATIENCE_S = 60.0
_ROLES = {
    "person": "system:masters",
    "kwok": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
}
"""Who calls the API server, and the group that they are of."""


class Cluster:
    """Runs while it is entered; its processes are ended by their handles, and all that they write is below `folder`.

    Args:
        folder: empty; also the home of every command that is run here.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tokens = {name: secrets.token_hex(16) for name in _ROLES}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._etcd, self._peer, self._port = free_ports(3)

    def __enter__(self) -> Self:
        try:
            self._start_api_server()
            self._start_the_rest()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes.values()):  # etcd last: the others want to write until they end
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def run(self, program: str, *words: str, given: str = "") -> Answer:
        """One of the binaries, as the person who may do everything."""
        return run(program, *words, home=self._folder, given=given, more={"KUBECONFIG": str(self._config("person"))})

    def kubectl(self, *words: str, given: str = "") -> str:
        """What kubectl says; it must not complain."""
        answer = self.run("kubectl", *words, given=given)
        assert answer.code == 0, f"kubectl {' '.join(words)}: {answer.err}"
        return answer.out

    def get(self, *words: str) -> Any:
        """What `kubectl get` finds, as values."""
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def apply(self, *objects: dict[str, Any]) -> None:
        """These objects are there."""
        self.kubectl("apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def eventually(self, is_so: Callable[[], bool], what: str, *, patience_s: float = _PATIENCE_S) -> None:
        """`is_so` has become true; else `what` is what was waited for in vain."""
        deadline_s = time.monotonic() + patience_s
        while not is_so():
            for name, process in self._processes.items():
                assert process.poll() is None, f"{name} has ended: {self._last_words(name)}"
            assert time.monotonic() < deadline_s, f"in vain: {what}"
            time.sleep(0.2)

    def _start_api_server(self) -> None:
        authority = Authority(self._folder / "certificates")
        certificate, key = authority.sign("api-server")
        accounts, accounts_key = authority.sign("accounts")
        users = self._folder / "users.csv"
        users.write_text("".join(f'{self._tokens[name]},{name},{name},"{group}"\n' for name, group in _ROLES.items()))
        for name in _ROLES:
            self._config(name).write_text(json.dumps(self._connection(authority.ca, self._tokens[name])))
        etcd, peer = (f"http://127.0.0.1:{port}" for port in (self._etcd, self._peer))
        self._start(
            "etcd",
            "--unsafe-no-fsync",
            f"--data-dir={self._folder / 'etcd'}",
            *(f"--{option}-client-urls={etcd}" for option in ("listen", "advertise")),
            *(f"--{option}-peer-urls={peer}" for option in ("listen", "initial-advertise")),
            f"--initial-cluster=default={peer}",
        )
        self._start(
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port}",
            "--advertise-address=192.0.2.1",
            "--endpoint-reconciler-type=none",  # nobody reaches it from within
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--token-auth-file={users}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.97.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={accounts}",
            f"--service-account-signing-key-file={accounts_key}",
        )
        self.eventually(lambda: self.run("kubectl", "get", "--raw=/readyz").code == 0, "an API server")
        config = self._config("system:kube-controller-manager")
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={config}",
            f"--service-account-private-key-file={accounts_key}",
            f"--root-ca-file={authority.ca}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--secure-port=0",
        )

    def _start_the_rest(self) -> None:
        config = self._config("system:kube-scheduler")
        self._start("kube-scheduler", f"--kubeconfig={config}", "--leader-elect=false", "--secure-port=0")
        self._start(
            "kwok",
            f"--kubeconfig={self._config('kwok')}",
            f"--config={BINARIES / 'kwok.yaml'}",
            "--manage-all-nodes",
            "--node-lease-duration-seconds=40",
        )
        room = {"cpu": "512", "memory": "4Ti", "pods": "500", "nvidia.com/gpu": "64"}
        labels = {"kubernetes.io/hostname": "pretended", "accelerator": "nvidia", "pool": "system"}
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": "pretended", "labels": labels},
                "status": {"capacity": room, "allocatable": room},
            },
            {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"},
        )
        self.eventually(lambda: is_true(self.get("node", "pretended"), "Ready"), "a node")

    def _start(self, name: str, *words: str) -> None:
        tied: Sequence[str] = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
        with self._log(name).open("wb") as log:
            command = [*tied, str(BINARIES / name), *words]
            where = {"PATH": os.environ["PATH"], "HOME": str(self._folder)}
            self._processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder, env=where
            )

    def _connection(self, authority: Path, token: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "it",
                    "cluster": {"server": f"https://127.0.0.1:{self._port}", "certificate-authority": str(authority)},
                }
            ],
            "users": [{"name": "me", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "me"}}],
            "current-context": "it",
        }

    def _config(self, user: str) -> Path:
        return self._folder / f"{user.replace(':', '-')}.json"

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _last_words(self, name: str) -> str:
        return self._log(name).read_text(errors="replace")[-2000:]


def is_true(value: dict[str, Any], condition: str) -> bool:
    """An object's status says so."""
    return any(c["type"] == condition and c["status"] == "True" for c in value.get("status", {}).get("conditions", ()))
