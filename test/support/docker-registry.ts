import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { makeCertificate } from './certificate.ts'
import { output } from './command.ts'
import { secret } from './secrets.ts'
import { until } from './wait.ts'

const program = join(import.meta.dirname, '../../.cache/docker-registry/usr/bin/docker-registry')

/** The test is in a network of its own, so the port is free. */
const ADDRESS = '127.0.0.1:5443'

/** Who may push and pull. */
export const PEER_USER = { username: 'anna', password: secret('docker-registry') } as const

/** bcrypt of that password, as htpasswd(1) writes it. */
const HTPASSWD = 'anna:$2y$04$IFXvgUq4pnq.Zx/NeuSJx.WdlRavmX7rplgpLCdsFDXc68OAz.9Yu\n'

/** Debian's docker-registry with TLS and one user, `PEER_USER`. */
export class DockerRegistry {
  readonly address = ADDRESS
  readonly url = `https://${ADDRESS}`
  /** PEM of the authority that its certificate comes from. */
  readonly authority: string
  readonly #directory: string
  readonly #process: ChildProcess
  readonly #ended: Promise<void>

  static async start(): Promise<DockerRegistry> {
    if (!existsSync(program)) throw new Error(`${program} is missing: run scripts/setup.sh test`)
    const registry = new DockerRegistry()
    const [host, port] = ADDRESS.split(':')
    await until('docker-registry listens', () => isListening(Number(port), host!))
    return registry
  }

  private constructor() {
    this.#directory = mkdtempSync(join(tmpdir(), 'berth-docker-registry-'))
    const file = (name: string) => join(this.#directory, name)
    const authority = makeCertificate('authority')
    const { cert, key } = makeCertificate('registry', ['127.0.0.1'], authority)
    this.authority = authority.cert
    mkdirSync(file('certs'))
    const texts = { 'certs/ca.crt': authority.cert, 'tls.pem': cert, 'tls.key': key, htpasswd: HTPASSWD }
    for (const [name, text] of Object.entries(texts)) writeFileSync(file(name), text)
    const config = {
      version: '0.1',
      log: { level: 'error' },
      storage: { filesystem: { rootdirectory: file('data') } },
      http: { addr: ADDRESS, tls: { certificate: file('tls.pem'), key: file('tls.key') } },
      auth: { htpasswd: { realm: 'test', path: file('htpasswd') } },
    }
    // JSON is YAML.
    writeFileSync(file('config.yml'), JSON.stringify(config))
    this.#process = spawn(program, ['serve', file('config.yml')], { env: {}, stdio: 'ignore' })
    this.#ended = new Promise(resolve => {
      this.#process.once('exit', () => resolve()).once('error', () => resolve())
    })
  }

  /**
   * Copies an image, or what is attached to one, into it with skopeo.
   *
   * @param from `127.0.0.1:…/name:tag` of a plain registry
   * @param form skopeo's flags for another format or compression; as it is unless given
   */
  async copy(from: string, name: string, form = ['--preserve-digests']): Promise<void> {
    const policy = join(this.#directory, 'policy.json')
    writeFileSync(policy, '{"default":[{"type":"insecureAcceptAnything"}]}')
    await output(
      'skopeo',
      `--policy=${policy}`,
      'copy',
      ...form,
      '--src-tls-verify=false',
      `--dest-cert-dir=${join(this.#directory, 'certs')}`,
      `--dest-creds=${PEER_USER.username}:${PEER_USER.password}`,
      `docker://${from}`,
      `docker://${this.address}/${name}`,
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill()
    await this.#ended
    rmSync(this.#directory, { recursive: true })
  }
}

function isListening(port: number, host: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(port, host)
    socket
      .once('error', () => resolve(false))
      .once('connect', () => {
        socket.destroy()
        resolve(true)
      })
  })
}
