import { connect as connectSocket } from 'node:net'
import type { Writable } from 'node:stream'
import { Client, credentials, type ServiceDefinition, type ServiceError } from '@grpc/grpc-js'
import type { MethodDefinition } from '@grpc/proto-loader'
import { errnoOf, messageOf, precondition } from '../base/errors.ts'
import type { AdminDefinition } from './generated/berth/admin/v1/Admin.ts'
import type { ImageAdminDefinition } from './generated/berth/admin/v1/ImageAdmin.ts'
import type { ImageServiceDefinition } from './generated/runtime/v1/ImageService.ts'
import type { RuntimeServiceDefinition } from './generated/runtime/v1/RuntimeService.ts'
import { loadServices } from './proto.ts'
import { errorFrom } from './status.ts'

type Request<Method> =
  Method extends MethodDefinition<infer Wire, infer _R, infer _O, infer _S> ? Wire : never
type Reply<Method> =
  Method extends MethodDefinition<infer _W, infer _R, infer _O, infer Decoded> ? Decoded : never

/** Without the index signature that every service definition has. */
type Calls<Definition> = {
  [Name in keyof Definition as string extends Name ? never : Name]: Definition[Name]
}
type RuntimeCalls = Calls<RuntimeServiceDefinition>
type ImageCalls = Calls<ImageServiceDefinition>
type ImageAdminCalls = Calls<ImageAdminDefinition>

/** Names of the calls about images that answer with many messages. */
type ImageAdminStream = 'VerifyImages' | 'ExportImages'

/** Names of the calls that answer with many messages. */
type RuntimeStream = Extract<keyof RuntimeCalls, `Stream${string}` | 'GetContainerEvents'>

export type ClientOptions = {
  /** ms for a call that does not stream. */
  readonly timeoutMs: number
}

/** Bytes of one message either way. */
const MAX_MESSAGE = 16 * 2 ** 20

/** A connection of the command line to the daemon. Errors are BerthErrors with the daemon's code and message. */
export class BerthClient implements Disposable {
  readonly #client: Client
  readonly #services: ReturnType<typeof loadServices>
  readonly #timeoutMs: number

  private constructor(socketPath: string, protoDir: string, options: ClientOptions) {
    this.#services = loadServices(protoDir)
    this.#timeoutMs = options.timeoutMs
    this.#client = new Client(`unix:${socketPath}`, credentials.createInsecure(), {
      'grpc.max_receive_message_length': MAX_MESSAGE,
      'grpc.max_send_message_length': MAX_MESSAGE,
    })
  }

  /** @throws BerthError precondition, saying what to do, when nobody answers at the path */
  static async connect(socketPath: string, protoDir: string, options: ClientOptions): Promise<BerthClient> {
    await knock(socketPath)
    return new BerthClient(socketPath, protoDir, options)
  }

  runtime<Name extends Exclude<keyof RuntimeCalls, RuntimeStream>>(
    name: Name,
    request: Request<RuntimeServiceDefinition[Name]>,
  ): Promise<Reply<RuntimeServiceDefinition[Name]>> {
    return this.#unary(this.#services.runtime, name, request)
  }

  image<Name extends Exclude<keyof ImageCalls, 'StreamImages'>>(
    name: Name,
    request: Request<ImageServiceDefinition[Name]>,
  ): Promise<Reply<ImageServiceDefinition[Name]>> {
    return this.#unary(this.#services.image, name, request)
  }

  admin<Name extends 'Timeline' | 'Status'>(
    name: Name,
    request: Request<AdminDefinition[Name]>,
  ): Promise<Reply<AdminDefinition[Name]>> {
    return this.#unary(this.#services.admin, name, request)
  }

  imageAdmin<Name extends Exclude<keyof ImageAdminCalls, ImageAdminStream | 'ImportImages'>>(
    name: Name,
    request: Request<ImageAdminDefinition[Name]>,
  ): Promise<Reply<ImageAdminDefinition[Name]>> {
    return this.#unary(this.#services.imageAdmin, name, request)
  }

  imageAdminStream<Name extends ImageAdminStream>(
    name: Name,
    request: Request<ImageAdminDefinition[Name]>,
    signal?: AbortSignal,
  ): AsyncGenerator<Reply<ImageAdminDefinition[Name]>, void, undefined> {
    return this.#stream(this.#services.imageAdmin, name, request, signal)
  }

  /** Sends an archive while the daemon takes it; the messages are its progress and the images. */
  async *importImages(
    tag: string,
    archive: AsyncIterable<Buffer>,
  ): AsyncGenerator<Reply<ImageAdminDefinition['ImportImages']>, void, undefined> {
    const { path, requestSerialize, responseDeserialize } = this.#services.imageAdmin.ImportImages
    const stream = this.#client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize)
    let failure: unknown
    const sending = sendArchive(stream, tag, archive).catch((error: unknown) => {
      failure = error
      stream.cancel()
    })
    try {
      yield* stream
      await sending
    } catch (error) {
      throw failure ?? errorFrom(error as ServiceError)
    } finally {
      stream.cancel()
    }
  }

  /** As long as the daemon has something to say; leaving the loop or aborting gives the call up. */
  runtimeStream<Name extends RuntimeStream>(
    name: Name,
    request: Request<RuntimeServiceDefinition[Name]>,
    signal?: AbortSignal,
  ): AsyncGenerator<Reply<RuntimeServiceDefinition[Name]>, void, undefined> {
    return this.#stream(this.#services.runtime, name, request, signal)
  }

  /** A pull's progress; the last message has the image id. */
  pull(
    request: Request<AdminDefinition['Pull']>,
    signal?: AbortSignal,
  ): AsyncGenerator<Reply<AdminDefinition['Pull']>, void, undefined> {
    return this.#stream(this.#services.admin, 'Pull', request, signal)
  }

  /** The last message is about the whole. */
  check(
    request: Request<AdminDefinition['Check']>,
    signal?: AbortSignal,
  ): AsyncGenerator<Reply<AdminDefinition['Check']>, void, undefined> {
    return this.#stream(this.#services.admin, 'Check', request, signal)
  }

  [Symbol.dispose](): void {
    this.#client.close()
  }

  async *#stream<Definition extends ServiceDefinition, Name extends keyof Definition>(
    service: Definition,
    name: Name,
    request: Request<Definition[Name]>,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Reply<Definition[Name]>, void, undefined> {
    const { path, requestSerialize, responseDeserialize } = service[name]!
    const stream = this.#client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, request)
    const cancel = () => stream.cancel()
    signal?.addEventListener('abort', cancel, { once: true })
    try {
      yield* stream
    } catch (error) {
      throw errorFrom(error as ServiceError)
    } finally {
      signal?.removeEventListener('abort', cancel)
      cancel()
    }
  }

  #unary<Definition extends ServiceDefinition, Name extends keyof Definition>(
    service: Definition,
    name: Name,
    request: Request<Definition[Name]>,
  ): Promise<Reply<Definition[Name]>> {
    const { path, requestSerialize, responseDeserialize } = service[name]!
    const { promise, resolve, reject } = Promise.withResolvers<Reply<Definition[Name]>>()
    const options = { deadline: Date.now() + this.#timeoutMs }
    this.#client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      options,
      (error, reply) => {
        if (error === null) resolve(reply)
        else reject(errorFrom(error))
      },
    )
    return promise
  }
}

/** Bytes of one piece of an archive: a quarter of what the daemon takes in one message of the kind. */
const MAX_PIECE = 256 * 1024

/** Returns early when the call has ended. */
async function sendArchive(stream: Writable, tag: string, archive: AsyncIterable<Buffer>): Promise<void> {
  stream.write({ tag })
  for await (const chunk of archive) {
    for (let at = 0; at < chunk.length; at += MAX_PIECE) {
      if (stream.destroyed) return
      if (!stream.write({ data: chunk.subarray(at, at + MAX_PIECE) })) await drained(stream)
    }
  }
  stream.end()
}

/** Takes more, or nothing any more. */
function drained(stream: Writable): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  for (const event of ['drain', 'close', 'error', 'status']) stream.once(event, resolve)
  return promise.finally(() => {
    for (const event of ['drain', 'close', 'error', 'status']) stream.off(event, resolve)
  })
}

/** The library retries a connection and then says little: ask the kernel first. */
function knock(socketPath: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const socket = connectSocket(socketPath, () => {
    socket.destroy()
    resolve()
  })
  socket.once('error', error => reject(precondition(whyNobody(socketPath, error))))
  return promise
}

function whyNobody(socketPath: string, error: Error): string {
  const start = "start it with 'systemctl start berth' or 'berth daemon'"
  switch (errnoOf(error)) {
    case 'ENOENT':
      return `the daemon is not running: there is no socket ${socketPath}; ${start}`
    case 'ECONNREFUSED':
      return `the daemon is not running: nobody listens on ${socketPath}; ${start}`
    case 'EACCES':
      return `no permission to connect to ${socketPath}; run this as root`
    default:
      return `cannot connect to ${socketPath}: ${messageOf(error)}`
  }
}
