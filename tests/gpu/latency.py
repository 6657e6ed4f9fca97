"""latency.py - what a request waits: a picture is posted at random moments (a Poisson process), one at a time.

    latency.py URL PICTURE --seconds S [--mean-ms 100] [--job ID] [--only-steps]

Prints "name value" lines: requests, failed, p50_ms, p90_ms, p99_ms, max_ms (from the first byte sent to the last one
received, over one kept connection), and with --job the steps_per_s that the training job made in that time, between two
moments at which its count of steps was seen to change. --only-steps posts nothing. Needs Python alone. Exit status: 0 all
answered, 1 one failed or the training did not move, 2 wrong usage."""
import argparse
import http.client
import json
import random
import sys
import threading
import time
import urllib.parse


class Steps(threading.Thread):
    """Looks at a training job's count of steps until told to end; the rate is that between its changes."""

    def __init__(self, host, job):
        super().__init__(daemon=True)
        self.host, self.job, self.end, self.seen = host, job, threading.Event(), []

    def run(self):
        last = None
        while not self.end.is_set():
            try:
                c = http.client.HTTPConnection(self.host, timeout=30)
                c.request("GET", "/v1/jobs/" + self.job)
                step = json.loads(c.getresponse().read())["training"]["step"]
                c.close()
            except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException) as e:
                print("# job %s: %r" % (self.job, e), file=sys.stderr)
                step = None
            if step is not None and step != last:
                if last is not None:
                    self.seen.append((time.monotonic(), step))
                last = step
            self.end.wait(0.05)

    def rate(self):
        if len(self.seen) < 2:
            return None
        (t0, s0), (t1, s1) = self.seen[0], self.seen[-1]
        return (s1 - s0) / (t1 - t0)


def post(host, body, seconds, mean_ms):
    rnd, ms, failed = random.Random(1), [], 0
    conn = http.client.HTTPConnection(host, timeout=60)
    begin = due = time.monotonic()
    while True:
        due += rnd.expovariate(1e3 / mean_ms)
        if due - begin > seconds:
            break
        time.sleep(max(0.0, due - time.monotonic()))  # late ones go out at once
        t = time.monotonic()
        try:
            conn.request("POST", "/v1/derain", body, {"Content-Type": "image/png"})
            r = conn.getresponse()
            r.read()
            if r.status != 200:
                failed += 1
                print("# answered %d" % r.status, file=sys.stderr)
        except (OSError, http.client.HTTPException) as e:
            failed += 1
            print("# %s" % e, file=sys.stderr)
            conn.close()
            conn = http.client.HTTPConnection(host, timeout=60)
        ms.append((time.monotonic() - t) * 1e3)
    return sorted(ms), failed


def main():
    p = argparse.ArgumentParser()
    p.add_argument("url")
    p.add_argument("picture")
    p.add_argument("--seconds", type=float, required=True)
    p.add_argument("--mean-ms", type=float, default=100)
    p.add_argument("--job")
    p.add_argument("--only-steps", action="store_true")
    a = p.parse_args()
    host = urllib.parse.urlsplit(a.url).netloc
    if not host or (a.only_steps and not a.job):
        p.error("URL is not http://HOST:PORT, or --only-steps without --job")
    with open(a.picture, "rb") as f:
        body = f.read()
    steps = Steps(host, a.job) if a.job else None
    if steps:
        steps.start()
    rc = 0
    if a.only_steps:
        time.sleep(a.seconds)
    else:
        ms, failed = post(host, body, a.seconds, a.mean_ms)
        print("requests %d\nfailed %d" % (len(ms), failed))
        for name, part in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1)):
            if ms:
                print("%s_ms %.3f" % (name, ms[min(len(ms) - 1, int(part * len(ms)))]))
        rc = 1 if failed or not ms else 0
    if steps:
        steps.end.set()
        steps.join()
        rate = steps.rate()
        if rate is None:
            print("# the training did not move", file=sys.stderr)
            rc = 1
        else:
            print("steps_per_s %.4f" % rate)
    return rc


if __name__ == "__main__":
    sys.exit(main())
