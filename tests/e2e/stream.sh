#!/bin/sh
# stream.sh - `derain put` and `get` hold no picture: a big one goes up and comes back through files, over a connection that
# breaks in both directions, and the program's peak stays small. The service is a small script that derains nothing.
. tests/e2e/lib.inc
need python3
cat >"$T/run.py" <<'PY'
import base64, hashlib, http.server, os, subprocess, sys, threading, time
derain, T, case = sys.argv[1:4]
MB = 1 << 20
block = os.urandom(MB)
SIG = b'\x89PNG\r\n\x1a\n'
with open(T + '/big.png', 'wb') as f:
    f.write(SIG)
    for _ in range(120): f.write(block)
sent = hashlib.sha256(open(T + '/big.png', 'rb').read()).hexdigest()
result = hashlib.sha256(SIG)
for _ in range(150): result.update(block[::-1])
state = {'posts': 0, 'gets': 0, 'keys': set(), 'bad': []}

class H(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *a): pass
    def picture(self, cut):
        self.send_response(200)
        self.send_header('Content-Type', 'image/png')
        self.send_header('Content-Length', str(150 * MB + 8))
        self.send_header('Content-Digest', 'sha-256=:%s:' % base64.b64encode(result.digest()).decode())
        self.end_headers()
        self.wfile.write(SIG)
        for i in range(150):
            if cut and i == 40: self.connection.shutdown(2); return
            self.wfile.write(block[::-1])
    def json(self, code, text):
        self.send_response(code)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def do_POST(self):
        state['posts'] += 1
        state['keys'].add(self.headers['Idempotency-Key'])
        left, h = int(self.headers['Content-Length']), hashlib.sha256()
        while left:
            part = self.rfile.read(min(left, MB))
            if not part: return
            h.update(part)
            left -= len(part)
            if state['posts'] == 1 and left < 60 * MB:  # in the middle of the upload
                self.close_connection = True
                self.connection.shutdown(2)
                return
        if h.hexdigest() != sent: state['bad'].append('another body: try %d' % state['posts'])
        if case == 'job': self.json(202, b'{"id":"job_1","state":"running"}')
        else: self.picture(state['posts'] == 2)  # and of the download
    def do_GET(self):
        if not self.path.endswith('/result'): return self.json(200, b'{"id":"job_1","state":"succeeded"}')
        state['gets'] += 1
        self.picture(state['gets'] == 1)

s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), H)
threading.Thread(target=s.serve_forever, daemon=True).start()
env = dict(os.environ, DERAIN_URL='http://127.0.0.1:%d' % s.server_port, TMPDIR=T + '/tmp')
os.makedirs(T + '/tmp', exist_ok=True)
out = T + '/out.png'
def run(*args, **how):
    """Exit code; the peak of its memory goes to `peak`. (ru_maxrss would count this script's pages, which a fork has too.)"""
    global peak
    p = subprocess.Popen([derain, *args], env=env, **how)
    while p.poll() is None:
        try: lines = open('/proc/%d/status' % p.pid).read().splitlines()
        except OSError: continue
        if open('/proc/%d/comm' % p.pid).read().strip() == 'derain':
            peak = max([peak] + [int(l.split()[1]) / 1024 for l in lines if l.startswith('VmHWM')])
        time.sleep(0.01)
    return p.returncode
peak = 0
if case == 'pipe':
    cat = subprocess.Popen(['cat', T + '/big.png'], stdout=subprocess.PIPE)
    rc = run('put', '-', stdin=cat.stdout, stdout=open(out, 'wb'))
elif case == 'get': rc = run('get', 'job_1', '-o', out)
else: rc = run('put', T + '/big.png', '-o', out)
got = hashlib.sha256(open(out, 'rb').read()).hexdigest()
left = [n for n in os.listdir(T) if '.tmp-' in n] + os.listdir(T + '/tmp')
print('# %s: %d posts, %d fetches, peak %.0f MB' % (case, state['posts'], state['gets'], peak))
bad = state['bad'] + ['exit %d' % rc] * (rc != 0) + ['another result'] * (got != result.hexdigest()) + left
if case != 'get' and (state['posts'] < (2 if case == 'job' else 3) or len(state['keys']) != 1): bad.append('no retry, or another key')
if case in ('job', 'get') and state['gets'] < 2: bad.append('no second fetch')
if not 0 < peak <= 32: bad.append('holds too much: %.0f MB' % peak)
print(bad)
sys.exit(bool(bad))
PY
one() { rm -rf "$T/out.png"; python3 "$T/run.py" "$B/derain" "$T" "$1" || return 1; }
check a_file_is_sent_and_the_answer_kept_in_pieces one direct
check a_job_that_takes_longer_too one job
check a_pipe_too one pipe
check get_too one get
exit $failed
