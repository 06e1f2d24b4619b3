import {
  type Input,
  StreamingClient,
  type StreamingSession,
  streamingClientPath,
} from '../test/support/streaming-client.ts'
import { CriPeer } from './cri-peer.ts'
import { makeGroup, removeGroup } from './measure-pods.ts'
import { forEachOf, numbersFrom } from './parallel.ts'
import type { Peer } from './peer.ts'
import type { Plan } from './plan.ts'
import { residentMiB } from './processes.ts'
import type { Samples } from './statistics.ts'

const POD = 0
const SERVE = `/mnt/client serve pour=:8080 </dev/null >/tmp/serving 2>&1 &
  for i in $(seq 100); do grep serving /tmp/serving && exit; sleep 0.1; done; exit 1`
const PROTOCOL = 'v4.channel.k8s.io'
/** Where the pod pours out as many bytes as it is asked for. */
const PORT = 8080
const SESSIONS = 50
/** Of one session: two streams each. */
const CONNECTIONS = 100

/** Exec and port-forward with clients of Kubernetes' own library, all daemons in turn within each round. */
export async function measureStreaming(peers: readonly Peer[], plan: Plan, samples: Samples): Promise<void> {
  const streamings: Streaming[] = []
  for (const peer of peers) if (peer instanceof CriPeer) streamings.push(await Streaming.open(peer, plan))
  for (const streaming of streamings) await streaming.measure(new Discarded()) // warm-up
  for (let round = 0; round < plan.rounds; round++) {
    for (const streaming of streamings) await streaming.measure(samples)
  }
  for (const streaming of streamings) await streaming.close()
}

type Kept = Pick<Samples, 'add'>

class Discarded implements Kept {
  add(): void {}
}

class Streaming {
  readonly #peer: CriPeer
  readonly #plan: Plan
  readonly #client = new StreamingClient()

  static async open(peer: CriPeer, plan: Plan): Promise<Streaming> {
    makeGroup(peer, POD)
    await peer.up(POD, 'runc', [streamingClientPath()])
    const streaming = new Streaming(peer, plan)
    await peer.exec(POD, ['sh', '-c', SERVE])
    return streaming
  }

  private constructor(peer: CriPeer, plan: Plan) {
    this.#peer = peer
    this.#plan = plan
  }

  async close(): Promise<void> {
    await this.#client.kill()
    await this.#peer.down(POD)
    removeGroup(this.#peer, POD)
  }

  async measure(samples: Kept): Promise<void> {
    const { name } = this.#peer
    for (let i = 0; i < this.#plan.execs / 4; i++)
      samples.add('exec first byte', name, await this.#execFirstByte())
    samples.add('exec stdout', name, await this.#execOutput())
    samples.add('exec stdin', name, await this.#execInput())
    samples.add('forward', name, await this.#forwarded())
    samples.add('sessions', name, await this.#sessionsAtOnce())
    samples.add('streams', name, await this.#streamsAtOnce())
    samples.add('download growth', name, await this.#stalledDownload())
  }

  async #exec(cmd: readonly string[], stdin?: { bytes: number }, rate?: number): Promise<StreamingSession> {
    const streams = { stdin: stdin !== undefined, stdout: true }
    const url = await this.#peer.execUrl(POD, { cmd: [...cmd], ...streams })
    const stdout = { digest: false, ...(rate === undefined ? {} : { rate }) }
    return this.#client.exec({ url, transport: 'spdy', protocols: [PROTOCOL], stdin, stdout })
  }

  /** From the call on, ms. */
  async #execFirstByte(): Promise<number> {
    const started = performance.now()
    const session = await this.#exec(['echo', 'here'])
    const first = await session.first
    await completed(session, 5)
    return first - started
  }

  /** MB/s. */
  async #execOutput(): Promise<number> {
    const session = await this.#exec(pour(this.#plan.streamMegabytes))
    const started = await session.first
    return this.#throughput(started, session)
  }

  async #throughput(started: number, session: StreamingSession): Promise<number> {
    const bytes = this.#plan.streamMegabytes * 2 ** 20
    await completed(session, bytes)
    return bytes / 1e3 / (performance.now() - started)
  }

  async #execInput(): Promise<number> {
    const bytes = this.#plan.streamMegabytes * 2 ** 20
    const started = performance.now()
    const session = await this.#exec(['sh', '-c', 'dd of=/dev/null bs=1M 2>&1 | head -c 1'], { bytes })
    await completed(session, 1)
    return bytes / 1e3 / (performance.now() - started)
  }

  async #forward(transport: 'spdy' | 'spdy-streams'): Promise<StreamingSession> {
    const url = await this.#peer.forwardUrl(POD, PORT)
    const forward = this.#client.forward({ url, transport, ports: [PORT] })
    await forward.opened
    return forward
  }

  async #forwarded(): Promise<number> {
    const forward = await this.#forward('spdy')
    const bytes = this.#plan.streamMegabytes * 2 ** 20
    const connection = this.#client.connect(forward, PORT, ask(bytes), { digest: false })
    const rate = await this.#throughput(await connection.first, connection)
    await forward.cancel()
    return rate
  }

  /** Until all of them have ended, s. */
  async #sessionsAtOnce(): Promise<number> {
    const started = performance.now()
    await forEachOf(numbersFrom(0, SESSIONS), SESSIONS, async () => {
      await completed(await this.#exec(['dd', 'if=/dev/zero', 'bs=64k', 'count=16']), 2 ** 20)
    })
    return (performance.now() - started) / 1000
  }

  async #streamsAtOnce(): Promise<number> {
    const forward = await this.#forward('spdy-streams')
    const started = performance.now()
    await forEachOf(numbersFrom(0, CONNECTIONS), CONNECTIONS, async () => {
      await completed(this.#client.connect(forward, PORT, ask(2 ** 20), { digest: false }), 2 ** 20)
    })
    const seconds = (performance.now() - started) / 1000
    await forward.cancel()
    return seconds
  }

  /**
   * How much the daemon's memory grows at most, MiB, while a download stops, crawls and runs to its end.
   */
  async #stalledDownload(): Promise<number> {
    const { pid } = this.#peer.daemon
    const before = residentMiB(pid)
    let peak = before
    const watch = setInterval(() => {
      peak = Math.max(peak, residentMiB(pid))
    }, 20)
    const { downloadMegabytes } = this.#plan
    const session = await this.#exec(pour(downloadMegabytes), undefined, 0)
    await new Promise(resolve => setTimeout(resolve, 1000))
    await session.rate(4 << 20)
    await new Promise(resolve => setTimeout(resolve, 1000))
    await session.rate()
    await completed(session, downloadMegabytes * 2 ** 20)
    clearInterval(watch)
    return peak - before
  }
}

function pour(megabytes: number): string[] {
  return ['dd', 'if=/dev/zero', 'bs=1M', `count=${megabytes}`]
}

/** What a connection sends for so many bytes. Its own side stays open, as that of a browser does. */
function ask(bytes: number): Input {
  return { text: `${bytes}\n`, open: true }
}

async function completed(session: StreamingSession, bytes: number): Promise<void> {
  const { error, exitCode = 0, stdout } = await session.ended
  if (error !== undefined || exitCode !== 0 || stdout?.bytes !== bytes) {
    throw new Error(
      `a session gave ${stdout?.bytes} of ${bytes} bytes, exit code ${exitCode}: ${error ?? ''}`,
    )
  }
}
