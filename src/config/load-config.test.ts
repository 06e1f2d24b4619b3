import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, test } from 'node:test'
import { inspect } from 'node:util'
import { checkConfigFile, type Flags, loadConfig } from './load-config.ts'

let directory = ''
let file = ''

before(() => {
  directory = mkdtempSync(join(tmpdir(), 'berth-config-'))
})

after(() => {
  rmSync(directory, { recursive: true })
})

/** Writes the configuration of one test: the file, then drop-ins by name. */
function write(name: string, toml: string, dropIns: Readonly<Record<string, string>> = {}): void {
  file = join(directory, name, 'berth.conf')
  mkdirSync(`${file}.d`, { recursive: true })
  writeFileSync(file, toml)
  for (const [dropIn, text] of Object.entries(dropIns)) writeFileSync(join(`${file}.d`, dropIn), text)
}

function load(flags: Flags = {}, env: Readonly<Record<string, string>> = {}) {
  return loadConfig({ flags: { config: [file], ...flags }, env: { PATH: '/nowhere', ...env } })
}

function problemsOf(toml: string): string[] {
  write('problems', toml)
  try {
    load()
  } catch (error) {
    assert.equal((error as { code?: unknown }).code, 'invalid')
    return (error as Error).message.replaceAll(file, 'FILE').split('\n')
  }
  return []
}

test('without anything, the defaults', () => {
  const { config } = loadConfig({ env: {}, flags: { 'config-dir': [''] } })
  assert.equal(config.root, '/var/lib/berth')
  assert.equal(config.api.listen, '/run/berth/berth.sock')
  assert.equal(config.runtime.cgroupManager, 'cgroupfs')
  assert.equal(config.runtime.conmonCgroup, 'pod')
  assert.deepEqual(config.network.pluginDirs, ['/opt/cni/bin', '/usr/lib/cni'])
  assert.ok(config.runtime.maxParallelOperations >= 2)
  assert.deepEqual(Object.keys(config.runtime.runtimes), ['runc'])
})

test('flag before variable before drop-in before file', () => {
  write(
    'order',
    '[crio.runtime]\npids_limit = 1\nlog_level = "trace"\nlog_format = "json"\n[crio]\nroot = "/file"\n',
    {
      '20-b.conf': '[crio.runtime]\npids_limit = 3\nlog_level = "error"\n',
      '10-a.conf': '[crio.runtime]\npids_limit = 2\nlog_level = "warn"\n',
      '30-c.conf.disabled': 'not TOML',
    },
  )
  assert.equal(load().config.runtime.pidsLimit, 3)
  assert.equal(load().config.runtime.logFormat, 'json')
  const { config } = load(
    { 'pids-limit': ['5'] },
    { BERTH_PIDS_LIMIT: '4', BERTH_LOG_LEVEL: 'debug', BERTH_ROOT: '' },
  )
  assert.equal(config.runtime.pidsLimit, 5)
  assert.equal(config.runtime.logLevel, 'debug')
  assert.equal(config.root, '/file')
  assert.equal(config.origins['crio.runtime.pids_limit'], '--pids-limit')
  assert.equal(config.origins['crio.runtime.log_level'], 'BERTH_LOG_LEVEL')
  assert.equal(config.origins['crio.root'], `${file}:6`)
  assert.deepEqual(
    config.files.map(name => name.slice(file.length)),
    ['', '.d/10-a.conf', '.d/20-b.conf'],
  )
})

test('the drop-in that many CRI-O nodes carry works as it is', () => {
  write('crio', '', {
    '02-cgroup.conf': '[crio.runtime]\nconmon_cgroup = "pod"\ncgroup_manager = "cgroupfs"\n',
  })
  const { config, warnings } = load()
  assert.equal(config.runtime.conmonCgroup, 'pod')
  assert.equal(config.runtime.cgroupManager, 'cgroupfs')
  assert.deepEqual(warnings, [])
})

test('[berth.*] is [crio.*], and a key has one place', () => {
  write('alias', '[berth]\nroot = "/b"\n[berth.runtime.runtimes.crun]\nruntime_path = "/c"\n')
  assert.equal(load().config.root, '/b')
  assert.equal(load().config.runtime.runtimes.crun?.path, '/c')
  assert.deepEqual(problemsOf('[crio]\nroot = "/a"\n[berth]\nroot = "/b"\n'), [
    'FILE:4: berth.root: given twice, also as crio.root in line 2',
  ])
})

test('an unknown key names file, line and the nearest key', () => {
  assert.deepEqual(problemsOf('[crio.runtime]\n\ncgroup_manger = "x"\n'), [
    'FILE:3: crio.runtime.cgroup_manger: unknown key; did you mean "cgroup_manager"?',
  ])
  assert.deepEqual(problemsOf('[crio]\nlisten = "/x"\n'), [
    'FILE:2: crio.listen: unknown key; did you mean "crio.api.listen"?',
  ])
  assert.deepEqual(problemsOf('[crio.runtime]\nqwertyuiop = 1\n'), [
    'FILE:2: crio.runtime.qwertyuiop: unknown key',
  ])
  assert.deepEqual(problemsOf('[crio.runtme]\na = 1\n'), [
    'FILE:1: crio.runtme: unknown table; did you mean "runtime"?',
  ])
  assert.deepEqual(problemsOf('[crio.runtime.runtimes.x]\nruntime_pth = "/x"\n'), [
    'FILE:2: crio.runtime.runtimes.x.runtime_pth: unknown key; did you mean "runtime_path"?',
  ])
  assert.deepEqual(problemsOf('[cri]\n'), [
    'FILE:1: cri: unknown table; everything stands below [crio] or [berth]; did you mean "crio"?',
  ])
})

test('a wrong value names file, line, key and what was expected', () => {
  assert.deepEqual(problemsOf('[crio.runtime]\npids_limit = "many"\n[crio]\nroot = "var"\n'), [
    'FILE:2: crio.runtime.pids_limit: expected a whole number from -1 to 4194304, got "many"',
    'FILE:4: crio.root: expected an absolute path without "..", got "var"',
  ])
  assert.deepEqual(problemsOf('crio = 3\n'), ['FILE:1: crio: expected a table, got 3'])
  assert.deepEqual(problemsOf('[crio]\napi = 3\n'), ['FILE:2: crio.api: expected a table, got 3'])
  assert.deepEqual(problemsOf('[crio.runtime]\nruntimes = "runc"\n'), [
    'FILE:2: crio.runtime.runtimes: expected a table of runtimes, got "runc"',
  ])
  assert.deepEqual(problemsOf('[crio.runtime.runtimes]\nrunc = "/x"\n'), [
    'FILE:2: crio.runtime.runtimes.runc: expected a table, got "/x"',
  ])
  assert.match(problemsOf('[crio]\nroot = \n')[0] ?? '', /^FILE:2: not valid TOML: /)
})

test('wrong flags and variables say which', () => {
  write('texts', '')
  assert.throws(() => load({ 'log-level': ['loud'] }, { BERTH_PIDS_LIMIT: 'x' }), {
    message:
      'BERTH_PIDS_LIMIT: expected a whole number from -1 to 4194304, got "x"\n' +
      '--log-level: expected one of "trace", "debug", "info", "warn", "error", "fatal", got "loud"',
  })
})

test("keys of CRI-O's that mean nothing here are warnings; harmless values are silent", () => {
  write(
    'foreign',
    '[crio.runtime]\npinns_path = "/x"\ndrop_infra_ctr = true\nhooks_dir = []\nread_only = false\n',
  )
  assert.deepEqual(load().warnings, [
    `${file}:2: crio.runtime.pinns_path has no effect in Berth: namespaces are pinned below runroot, without a helper program`,
  ])
})

test('what Berth cannot grant is refused, not ignored', () => {
  assert.deepEqual(
    problemsOf('[crio.runtime]\nread_only = true\n[crio.image]\nregistries = ["docker.io"]\n'),
    [
      'FILE:2: crio.runtime.read_only: cannot be true: a read-only root is asked for by the pod',
      'FILE:4: crio.image.registries: cannot be ["docker.io"]: say it in registries.conf',
    ],
  )
})

test('with the systemd driver every group that is named is a slice', () => {
  write('slices', '[crio.runtime]\ncgroup_manager = "systemd"\nconmon_cgroup = "system.slice"\n')
  const { runtime } = load().config
  assert.deepEqual([runtime.podCgroupParent, runtime.conmonCgroup], ['/berth.slice', '/system.slice'])
  assert.deepEqual(
    problemsOf(
      '[crio.runtime]\ncgroup_manager = "systemd"\npod_cgroup_parent = "/pods"\nconmon_cgroup = "/monitors"\n',
    ),
    [
      'FILE:3: crio.runtime.pod_cgroup_parent: expected a slice with cgroup_manager = "systemd"',
      'FILE:4: crio.runtime.conmon_cgroup: expected "pod", "" or a slice with cgroup_manager = "systemd"',
    ],
  )
  assert.match(problemsOf('[crio.runtime]\npod_cgroup_parent = "pods.slice"\n').join(), /expected no slice/)
})

test('a key that nothing acts on yet warns when it is changed', () => {
  write(
    'pending',
    '[crio.tracing]\nenable_tracing = true\n[crio.metrics]\nmetrics_port = 9091\nenable_metrics = true\n',
  )
  const { config, warnings } = load()
  assert.equal(config.tracing.enableTracing, true)
  assert.deepEqual(
    warnings.map(warning => warning.slice(file.length, warning.indexOf(' has'))),
    [':2: crio.tracing.enable_tracing', ':5: crio.metrics.enable_metrics'],
  )
})

test('the streaming server: a port as CRI-O writes it, TLS with all that it needs', () => {
  const tls = 'stream_enable_tls = true\nstream_tls_cert = "/c.pem"\n'
  assert.deepEqual(problemsOf(`[crio.api]\n${tls}`), [
    'FILE:2: crio.api.stream_enable_tls: needs crio.api.stream_tls_cert and crio.api.stream_tls_key',
  ])
  assert.deepEqual(problemsOf('[crio.api]\ntls_min_version = "VersionTLS11"\n').length, 1)
  const wrong = '[crio.api]\nstream_allowed_origins = ["console.example"]\n'
  assert.match(problemsOf(wrong)[0] ?? '', /^FILE:2: .*an origin such as/)
  write('stream', `[crio.api]\n${tls}stream_tls_key = "/k.pem"\nstream_port = "10010"\n`)
  const { config, warnings } = load()
  assert.deepEqual([config.api.streamPort, config.api.streamTlsKey, warnings], [10010, '/k.pem', []])
})

test('runtimes add up over files and flags, key by key', () => {
  write(
    'runtimes',
    '[crio.runtime]\ndefault_runtime = "crun"\n[crio.runtime.runtimes.crun]\nruntime_path = "/a/crun"\n',
    {
      '1.conf': '[crio.runtime.runtimes.crun]\nmonitor_cgroup = "system.slice"\nmonitor_env = ["A=b"]\n',
    },
  )
  const { config } = load({
    conmon: ['/c/conmon'],
    runroot: ['/run/x'],
    runtimes: ['kata:/k:/run/kata,foo:/f'],
  })
  assert.deepEqual(Object.keys(config.runtime.runtimes), ['crun', 'kata', 'foo'])
  assert.deepEqual(config.runtime.runtimes.crun, {
    name: 'crun',
    path: '/a/crun',
    isPathGiven: true,
    root: '/run/x/runtimes/crun',
    allowedAnnotations: [],
    monitorPath: '/c/conmon',
    isMonitorPathGiven: true,
    monitorCgroup: '/system.slice',
    monitorEnv: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', A: 'b' },
    noSyncLog: false,
  })
  assert.equal(config.runtime.runtimes.kata?.root, '/run/kata')
})

test('a state directory that other programs share is not used', () => {
  write('shared-root', '[crio.runtime.runtimes.runc]\nruntime_root = "/run/runc"\n')
  const { config, warnings } = load()
  const { runc } = config.runtime.runtimes
  assert.deepEqual(
    [runc?.root, runc?.isPathGiven, runc?.isMonitorPathGiven],
    ['/run/berth/runtimes/runc', false, false],
  )
  assert.match(warnings.join(), /:2: runtime_root "\/run\/runc" is not used/)
})

test('limits and sysctls are parsed', () => {
  write(
    'parsed',
    '[crio.runtime]\ndefault_ulimits = ["nofile=1024:-1"]\ndefault_sysctls = ["net.core.somaxconn=7"]\n',
  )
  const { rlimits, sysctls } = load().config.runtime
  assert.deepEqual(rlimits, [{ type: 'RLIMIT_NOFILE', soft: 1024, hard: -1 }])
  assert.deepEqual(sysctls, { 'net.core.somaxconn': '7' })
})

test('runtimes that cannot be are refused', () => {
  assert.deepEqual(problemsOf('[crio.runtime]\ndefault_runtime = "crun"\n'), [
    'FILE:2: crio.runtime.default_runtime: no runtime "crun" in crio.runtime.runtimes; none is configured',
  ])
  assert.match(
    problemsOf('[crio.runtime.runtimes.Kata_1]\n')[0] ?? '',
    /^FILE:1: the name of a runtime has lower-case/,
  )
  write('texts', '')
  for (const text of ['x', 'x:y', ':/y', 'x:/y:z', 'x:/y:/z:w']) {
    assert.throws(() => load({ runtimes: [text] }), /--runtimes: expected/, text)
  }
})

test('a slice is the path of its cgroup', () => {
  write('slice', '[crio.runtime]\nconmon_cgroup = "a-b-c.slice"\n')
  assert.equal(load().config.runtime.conmonCgroup, '/a.slice/a-b.slice/a-b-c.slice')
})

test('another runroot moves the socket with it', () => {
  write('runroot', '')
  assert.equal(load({ runroot: ['/run/two'] }).config.api.listen, '/run/two/berth.sock')
})

test('paths that would not fit a socket address are refused', () => {
  write('length', '')
  assert.equal(load({ runroot: [`/${'r'.repeat(32)}`] }).config.runroot.length, 33)
  assert.throws(
    () => load({ runroot: [`/${'r'.repeat(33)}`] }),
    /^BerthError: --runroot: crio\.runroot: 34 bytes long, at most 33/,
  )
  assert.throws(
    () => load({ listen: [`/${'l'.repeat(107)}`] }),
    /--listen: crio\.api\.listen: 108 bytes long/,
  )
})

test("CRI-O's own socket is refused, with the reason", () => {
  write('crio-sock', '')
  assert.throws(
    () => load({ listen: ['unix:///var/run/crio/crio.sock'] }),
    /kubelet and cAdvisor take for CRI-O itself/,
  )
})

test('files that were named must be there', () => {
  const missing = join(directory, 'missing.conf')
  assert.throws(
    () => loadConfig({ flags: { config: [missing] }, env: {} }),
    /missing\.conf: cannot be read: ENOENT/,
  )
  assert.throws(
    () => loadConfig({ env: { BERTH_CONFIG_DIR: missing } }),
    /missing\.conf: cannot be read: ENOENT/,
  )
  assert.throws(() => loadConfig({ flags: { config: [dirname(missing)] }, env: {} }), /not a regular file/)
})

test("CRI-O's variables count for settings, never for the places of its state", () => {
  write('shared', '')
  const env = {
    CONTAINER_PIDS_LIMIT: '9',
    CONTAINER_ROOT: '/crio',
    CONTAINER_LISTEN: '/crio.sock',
    CONTAINER_CONFIG: '/x',
  }
  const { config } = load({}, env)
  assert.equal(config.runtime.pidsLimit, 9)
  assert.equal(config.root, '/var/lib/berth')
  assert.equal(load({}, { ...env, BERTH_PIDS_LIMIT: '8' }).config.runtime.pidsLimit, 8)
})

test('a mistyped variable is noticed', () => {
  write('typo', '')
  assert.deepEqual(load({}, { BERTH_LOG_LEVL: 'x', BERTH_SOMETHING_ELSE_ENTIRELY: 'y' }).warnings, [
    'environment variable BERTH_LOG_LEVL is not known; did you mean BERTH_LOG_LEVEL?',
  ])
})

test('the password of a proxy is not printed', () => {
  write('proxy', '')
  const { config } = load({}, { https_proxy: 'http://joe:hunter2@proxy:3128/', NO_PROXY: '.local' })
  assert.equal(config.proxy.https, 'http://joe:hunter2@proxy:3128/')
  assert.doesNotMatch(JSON.stringify(config) + inspect(config, { depth: 9 }), /hunter2/)
  assert.deepEqual(JSON.parse(JSON.stringify(config.proxy)), {
    http: '',
    https: 'http://proxy:3128',
    noProxy: '.local',
  })
})

test('what systemd says is taken over', () => {
  write('systemd', '')
  const env = { NOTIFY_SOCKET: '@x', WATCHDOG_USEC: '60000000', WATCHDOG_PID: String(process.pid) }
  assert.deepEqual(load({}, env).config.systemd, { notifySocket: '@x', watchdogMs: 60_000 })
  assert.equal(load({}, { ...env, WATCHDOG_PID: '1' }).config.systemd.watchdogMs, 0)
})

test('the configuration is frozen throughout', () => {
  write('frozen', '')
  const { config } = load()
  const visit = (value: unknown, path: string) => {
    if (typeof value !== 'object' || value === null) return
    assert.ok(Object.isFrozen(value), path)
    for (const [name, child] of Object.entries(value)) visit(child, `${path}.${name}`)
  }
  visit(config, 'config')
})

test('one file can be checked by itself', () => {
  write('check', '[crio]\nroot = "/x"\n[crio.runtime]\nread_only = true\nhooks_dir = ["/h"]\n')
  const { problems, warnings } = checkConfigFile(file)
  assert.match(problems.join(), /:4: crio\.runtime\.read_only: cannot be true/)
  assert.match(warnings.join(), /:5: crio\.runtime\.hooks_dir has no effect/)
  write('check', '[crio]\nroot = "/x"\n')
  assert.deepEqual(checkConfigFile(file), { problems: [], warnings: [] })
})

test('a file that no person has typed is not read', () => {
  assert.deepEqual(problemsOf(`# ${'x'.repeat(2 ** 20 - 3)}\n`), [])
  assert.deepEqual(problemsOf(`# ${'x'.repeat(2 ** 20 - 2)}\n`), ['FILE: longer than 1048576 bytes'])
})
