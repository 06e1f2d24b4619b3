import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FOREVER } from '../support/kubelet.ts'
import { type Look, StreamingClient, withoutStreamingClient } from '../support/streaming-client.ts'
import { succeeded, useStreams, VERSIONS, type VersionName } from '../support/streams.ts'
import { useDaemon } from '../support/use-daemon.ts'
import { until } from '../support/wait.ts'

const MIB = 2 ** 20
const ALL = Object.keys(VERSIONS) as VersionName[]

/** They tell the process that its standard input has ended; the others cannot, by their protocols. */
const HALF_CLOSING: readonly VersionName[] = ['SPDY v4', 'SPDY v3', 'SPDY v2', 'WebSocket v5']
const RESIZING = ALL.filter(name => !/^SPDY v[12]$/.test(name))

const kubelet = useDaemon()
const streams = useStreams(kubelet)
const skip = withoutStreamingClient

/** At once; an error names the version. */
async function inEvery(
  versions: readonly VersionName[],
  run: (version: VersionName) => Promise<void>,
): Promise<void> {
  await Promise.all(
    versions.map(async version => {
      try {
        await run(version)
      } catch (error) {
        throw new Error(version, { cause: error })
      }
    }),
  )
}

async function sleeping(): Promise<string> {
  return kubelet().run(await kubelet().runPod(), FOREVER)
}

test('every version: both outputs and the exit code', { skip }, async () => {
  const container = await sleeping()
  await inEvery(ALL, async version => {
    for (const [script, code] of [
      ['exit 0', 0],
      ['exit 7', 7],
      ['kill -9 $$', 137],
      ['exit 255', 255],
    ] as const) {
      const session = await streams().exec(container, `echo out; echo err >&2; ${script}`, {}, version)
      const end = await session.ended
      assert.equal(end.stdout?.text, 'out\n')
      assert.equal(end.stderr?.text, 'err\n')
      assertExit(end, code, version)
    }
  })
})

test('every exit code', { skip }, async () => {
  const container = await sleeping()
  const codes = Array.from({ length: 256 }, (_, code) => code)
  const worker = async () => {
    for (let code = codes.pop(); code !== undefined; code = codes.pop()) {
      const end = await succeeded(await streams().exec(container, `exit ${code}`))
      assert.equal(end.exitCode, code)
    }
  }
  await Promise.all(Array.from({ length: 8 }, worker))
})

test('every version: bytes both ways, unchanged', { skip }, async () => {
  const container = await sleeping()
  await inEvery(ALL, version => echoed(container, 4 * MIB + 13, version))
})

for (const version of ['SPDY v4', 'WebSocket v5'] as const) {
  test(`${version}: 256 MiB both ways, unchanged`, { skip }, async () => {
    await echoed(await sleeping(), 256 * MIB, version)
  })
}

async function echoed(container: string, bytes: number, version: VersionName): Promise<void> {
  const script = HALF_CLOSING.includes(version) ? 'cat' : `head -c ${bytes}`
  const session = await streams().exec(container, script, { stdin: { bytes } }, version)
  const { stdin, stdout } = await session.ended
  assert.equal(stdin?.bytes, bytes)
  assert.deepEqual([stdout?.bytes, stdout?.sha256], [stdin?.bytes, stdin?.sha256])
}

test('the end of standard input reaches the process, which can say more', { skip }, async () => {
  const container = await sleeping()
  for (const version of HALF_CLOSING) {
    const session = await streams().exec(
      container,
      'cat; echo more; exit 3',
      { stdin: { text: 'hello\n' } },
      version,
    )
    const end = await session.ended
    assert.equal(end.stdout?.text, 'hello\nmore\n', version)
    assertExit(end, 3, version)
  }
})

test('a process that ends does not wait for a standard input that is still open', { skip }, async () => {
  const container = await sleeping()
  for (const version of ALL) {
    const session = await streams().exec(container, 'read x; echo $x', { stdin: { open: true } }, version)
    await session.opened
    await session.write('line\n')
    const end = await session.ended
    assert.equal(end.stdout?.text, 'line\n', version)
    assert.equal(end.error, undefined, version)
  }
})

test('input that the process does not read is no error, and its output still comes', { skip }, async () => {
  const container = await sleeping()
  for (const version of ['SPDY v4', 'WebSocket v5'] as const) {
    const session = await streams().exec(
      container,
      'exec <&-; echo deaf; exit 5',
      { stdin: { bytes: 8 * MIB } },
      version,
    )
    const end = await session.ended
    assert.equal(end.stdout?.text, 'deaf\n', version)
    assertExit(end, 5, version)
  }
})

test('terminal: one output, its size from the start and when it changes, keys that are signals', {
  skip,
}, async () => {
  const container = await sleeping()
  const script = 'tty; echo err >&2; while :; do stty size; sleep 0.05; done'
  for (const version of RESIZING) {
    const session = await streams().exec(container, script, { tty: true, stdin: { open: true } }, version)
    await session.opened
    await session.resize(101, 42)
    const shows = (text: string) => async () => (await session.look()).stdout?.text.endsWith(text)
    await until(`${version} shows the first size`, shows('\r\n42 101\r\n'))
    await session.resize(80, 24)
    await until(`${version} shows the next size`, shows('\r\n24 80\r\n'))
    await session.write('\x03')
    const end = await session.ended
    assert.match(end.stdout?.text ?? '', /^\/dev\/pts\/\d+\r\nerr\r\n/, version)
    assertExit(end, 130, version)
  }
})

test('terminal: ^D ends the input, and what is typed is echoed', { skip }, async () => {
  const container = await sleeping()
  for (const version of ['SPDY v4', 'WebSocket v5'] as const) {
    const session = await streams().exec(
      container,
      'cat; exit 6',
      { tty: true, stdin: { open: true } },
      version,
    )
    await session.opened
    await session.write('typed\n\x04')
    const end = await session.ended
    assert.equal(end.exitCode, 6)
    assert.match(end.stdout?.text ?? '', /^typed\r\n(\^D\x08\x08)?typed\r\n/, version)
  }
})

test("the container's environment, user, groups and directory", { skip }, async () => {
  const container = await kubelet().run(await kubelet().runPod(), FOREVER, {
    envs: [{ key: 'COLOUR', value: 'blue green' }],
    working_dir: '/tmp',
    linux: { security_context: { run_as_user: { value: 33 }, supplemental_groups: [7, 8] } },
  })
  const script = 'echo "$(id -u) $(id -G) $(pwd) $COLOUR"'
  for (const tty of [false, true]) {
    const { stdout } = await succeeded(await streams().exec(container, script, { tty }))
    assert.match(stdout?.text.trim() ?? '', /^33 33 7 8 \/tmp blue green$/)
  }
})

test('a program that is not there is an error with its name', { skip }, async () => {
  const container = await sleeping()
  const { client } = kubelet().daemon
  for (const version of ['SPDY v4', 'SPDY v2', 'WebSocket v5'] as const) {
    const { url } = await client.runtime('Exec', {
      container_id: container,
      cmd: ['no-such-program'],
      stdout: true,
    })
    const session = streams().client.exec({ url, ...VERSIONS[version], stdout: {} })
    const { error, exitCode, stdout } = await session.ended
    assert.ok(error !== undefined || (exitCode ?? 0) > 0)
    assert.match(`${error} ${stdout?.text}`, /no-such-program|exit code 12[67]/, version)
  }
})

test('a client that vanishes takes its process along, with a terminal and without', { skip }, async () => {
  const container = await sleeping()
  for (const tty of [false, true]) {
    await using client = new StreamingClient()
    const options = { client, tty, stdin: { open: true } }
    const session = await streams().exec(container, 'echo $$; exec sleep 54321', options)
    await session.first
    await client.kill()
    await until('the process is gone', async () => {
      const { stdout } = await kubelet().exec(container, 'cat /proc/[0-9]*/cmdline | tr "\\0" " "')
      return !stdout.includes('sleep 54321 ')
    })
  }
})

test('a container that has ended, or is not there, is refused at once', { skip }, async () => {
  const container = await sleeping()
  await kubelet().stop(container)
  await assert.rejects(streams().execUrl(container, 'true'), { code: 'precondition' })
  await assert.rejects(streams().execUrl('0123456789', 'true'), { code: 'not-found' })
})

test('a container that ends takes the session along', { skip }, async () => {
  const container = await sleeping()
  for (const version of ['SPDY v4', 'WebSocket v5'] as const) {
    const id = await kubelet().run(await kubelet().runPod(), FOREVER)
    const session = await streams().exec(id, `echo up; ${FOREVER}`, { stdin: { open: true } }, version)
    await session.first
    await kubelet().stop(id)
    assertExit(await session.ended, 137, version)
  }
  assert.equal((await kubelet().exec(container, 'echo other')).stdout, 'other\n')
})

/** v1 of SPDY may lose the text of a failure, by its protocol: its client stops at the end of the output. */
function assertExit(end: Look, code: number, version: VersionName): void {
  const { transport, protocols } = VERSIONS[version]
  if (transport === 'channels') {
    assert.equal(end.closeCode, 1000, version)
    if (protocols[0]?.startsWith('v4')) assert.equal(codeIn(end.status ?? ''), code, version)
    else assert.match(end.status ?? '', code === 0 ? /^$/ : new RegExp(`\\b${code}\\b`), version)
    return
  }
  if (version === 'SPDY v4' || version === 'WebSocket v5')
    assert.deepEqual([end.error, end.exitCode], [undefined, code])
  else if (code === 0) assert.equal(end.error, undefined)
  else if (version !== 'SPDY v1' || end.error !== undefined)
    assert.match(end.error ?? '', new RegExp(`\\b${code}\\b`), version)
}

/** The exit code in a Status. */
function codeIn(json: string): number {
  const { status, reason, details } = JSON.parse(json)
  if (status === 'Success') return 0
  assert.deepEqual([status, reason], ['Failure', 'NonZeroExitCode'])
  return Number(details.causes[0].message)
}
