import { createHash } from 'node:crypto'
import { type Digest, digestFromHex, isDigest } from '../base/digest.ts'
import { BerthError, isCode, messageOf } from '../base/errors.ts'
import type { Log } from '../observe/log.ts'
import type { BlobSource } from './blob-sources.ts'
import { download, type RangeOptions } from './download.ts'
import { type Descriptor, MANIFEST_TYPES, type Manifest, parseManifest } from './manifest.ts'
import { choosePlatform, type Platform, platformName } from './platform.ts'
import type { Reference } from './reference.ts'
import type { AttachedSignature, BlobOptions, BlobStream, Repository, ResolvedManifest } from './registry.ts'
import { readSignatures } from './signatures.ts'
import { allFailed, Failure, publicUrl } from './transport/failure.ts'
import { aborted } from './transport/http.ts'
import { type RetryPolicy, withRetries } from './transport/retry.ts'
import type { Session } from './transport/session.ts'

export type RepositoryOptions = {
  readonly retry: RetryPolicy
  readonly ranges: RangeOptions
  readonly platform: Platform
  readonly log: Log | undefined
  /** Fetches a foreign layer's URL, without credentials. */
  openUrl(
    url: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): ReturnType<BlobSource['open']>
}

/** The limit of the distribution specification ("Pushing Manifests"), which keeps images within it pullable. */
const MAX_MANIFEST = 4 * 1024 * 1024
/** An index of indexes is in use; deeper ones are not. */
const MAX_INDEX_DEPTH = 2

type Document = { readonly digest: Digest; readonly bytes: Buffer; readonly manifest: Manifest }

export class EndpointRepository implements Repository {
  readonly #reference: Reference
  readonly #options: RepositoryOptions
  /** Who may be asked for the manifest. */
  readonly #resolvers: readonly Session[]
  /** Who may be asked for blobs. An endpoint that did not have the manifest is not. */
  #sources: readonly Session[]

  constructor(reference: Reference, sessions: readonly Session[], options: RepositoryOptions) {
    this.#reference = reference
    this.#options = options
    this.#sources = sessions.filter(({ endpoint }) => endpoint.pulls)
    this.#resolvers =
      reference.digest === undefined ? sessions.filter(({ endpoint }) => endpoint.resolves) : this.#sources
  }

  async resolve(signal: AbortSignal): Promise<ResolvedManifest> {
    const { value, failed } = await this.#firstOf(
      this.#resolvers,
      `${this.#reference}`,
      signal,
      (session, retry) => this.#resolveAt(session, retry, signal),
    )
    this.#sources = this.#sources.filter(session => !failed.includes(session))
    if (this.#sources.length === 0) throw nobody(`${this.#reference}`, 'pull')
    return value
  }

  async signatures(manifest: Digest, signal: AbortSignal): Promise<readonly AttachedSignature[]> {
    const what = `${this.#reference}: signatures of ${manifest}`
    try {
      const { value } = await this.#firstOf(this.#sources, what, signal, (session, retry) =>
        readSignatures(session, manifest, retry, signal),
      )
      return value
    } catch (error) {
      if (isCode(error, 'not-found')) return []
      throw error
    }
  }

  async readBlob(descriptor: Descriptor, maxBytes: number, signal: AbortSignal): Promise<Buffer> {
    const what = `${this.#reference}: blob ${descriptor.digest}`
    if (descriptor.size > maxBytes) {
      throw new BerthError('unknown', `${what}: ${descriptor.size} bytes; at most ${maxBytes} are allowed`)
    }
    const chunks: Buffer[] = []
    for await (const chunk of this.openBlob(descriptor, signal)) chunks.push(chunk as Buffer)
    const bytes = Buffer.concat(chunks)
    if (sha256(bytes) !== descriptor.digest)
      throw new BerthError('unknown', `${what}: the content received has digest ${sha256(bytes)}`)
    return bytes
  }

  openBlob(descriptor: Descriptor, signal: AbortSignal, options: BlobOptions = {}): BlobStream {
    const path = `blobs/${descriptor.digest}`
    const sources: BlobSource[] = this.#sources.map(session => ({
      name: session.endpoint.host,
      open: (headers, inner) => session.get('get-blob', path, headers, [200, 206, 416], inner),
    }))
    for (const url of descriptor.urls ?? []) {
      sources.push({
        name: URL.parse(url)?.host ?? '',
        open: (headers, inner) => this.#options.openUrl(url, headers, inner),
      })
    }
    const what = `${this.#reference}: blob ${descriptor.digest}`
    return download(descriptor, sources, {
      retry: this.#options.retry,
      ranges: this.#options.ranges,
      signal,
      onBytes: options.onBytes,
      partial: options.partial,
      error: failures => allFailed(what, failures),
    })
  }

  /** A mirror that lacks an image is as it should be; one that fails otherwise is what an operator looks for. */
  #noteFailure({ endpoint }: Session, failure: Failure): void {
    const fields = { reference: `${this.#reference}`, endpoint: endpoint.host, error: failure }
    if (failure.kind === 'not-found')
      this.#options.log?.debug(fields, 'a registry endpoint does not have the image')
    else this.#options.log?.warn(fields, 'a registry endpoint failed')
  }

  /** What the first endpoint gives that does not fail. */
  async #firstOf<T>(
    sessions: readonly Session[],
    what: string,
    signal: AbortSignal,
    ask: (session: Session, retry: RetryPolicy) => Promise<T>,
  ): Promise<{ readonly value: T; readonly failed: readonly Session[] }> {
    if (sessions.length === 0) throw nobody(what, 'resolve')
    const { retry } = this.#options
    const failures: Failure[] = []
    for (const [index, session] of sessions.entries()) {
      // Only the last endpoint is worth waiting for: before it, the next one is the better second try.
      const isLast = index === sessions.length - 1
      try {
        const value = await ask(session, isLast ? retry : { ...retry, tries: 1 })
        return { value, failed: sessions.slice(0, index) }
      } catch (error) {
        if (!(error instanceof Failure)) throw aborted(signal) ?? error
        failures.push(error)
        this.#noteFailure(session, error)
      }
    }
    throw allFailed(what, failures)
  }

  async #resolveAt(session: Session, retry: RetryPolicy, signal: AbortSignal): Promise<ResolvedManifest> {
    const top = await this.#document(
      session,
      this.#reference.digest ?? this.#reference.tag ?? '',
      undefined,
      retry,
      signal,
    )
    let current = top
    for (let depth = 0; current.manifest.kind === 'index'; depth++) {
      if (depth === MAX_INDEX_DEPTH)
        throw new Failure('content', `${session.endpoint.host}: an index of an index of an index`)
      const entry = this.#choose(session, current.manifest)
      current = await this.#document(session, entry.digest, entry, retry, signal)
    }
    const { mediaType, config, layers } = current.manifest
    return {
      digest: top.digest,
      manifestDigest: current.digest,
      manifestBytes: current.bytes,
      mediaType,
      config,
      layers,
      endpoint: session.endpoint.host,
    }
  }

  #choose(session: Session, index: Manifest & { kind: 'index' }): Descriptor {
    const offered = index.entries.map(entry => entry.platform)
    const chosen = index.entries[choosePlatform(offered, this.#options.platform) ?? -1]
    if (chosen !== undefined) return chosen
    const names = offered
      .filter(platform => platform !== undefined && platform.os !== 'unknown')
      .map(platform => platformName(platform!))
    const list =
      [...new Set(names)]
        .slice(0, 20)
        .map(name => JSON.stringify(name))
        .join(', ') || 'none'
    throw new Failure(
      'content',
      `${session.endpoint.host}: the image has no variant for ${platformName(this.#options.platform)}; it offers ${list}`,
    )
  }

  /** One document from the manifests endpoint. `expected` is the index entry that leads to it. */
  async #document(
    session: Session,
    version: string,
    expected: Descriptor | undefined,
    retry: RetryPolicy,
    signal: AbortSignal,
  ): Promise<Document> {
    const headers = { accept: MANIFEST_TYPES.join(', ') }
    return withRetries(retry, signal, async () => {
      const response = await session.get('get-manifest', `manifests/${version}`, headers, [200], signal)
      const bytes = await response.read(MAX_MANIFEST)
      const wrong = (what: string) => new Failure('content', `${publicUrl(response.url)}: ${what}`)
      const digest = sha256(bytes)
      const announced = response.headers.get('docker-content-digest') ?? ''
      const wanted = isDigest(version) ? version : isDigest(announced) ? announced : digest
      if (digest !== wanted) throw wrong(`the content received has digest ${digest} instead of ${wanted}`)
      if (expected !== undefined && bytes.length !== expected.size) {
        throw wrong(`${bytes.length} bytes instead of the ${expected.size} that the index says`)
      }
      try {
        const manifest = parseManifest(bytes, response.headers.get('content-type') ?? '')
        if (expected !== undefined && manifest.mediaType !== expected.mediaType) {
          throw new Error(
            `${manifest.mediaType} instead of the ${JSON.stringify(expected.mediaType)} that the index says`,
          )
        }
        return { digest, bytes, manifest }
      } catch (error) {
        throw wrong(messageOf(error))
      }
    })
  }
}

function nobody(what: string, capability: string): BerthError {
  return new BerthError('unknown', `${what}: hosts.toml gives no host the capability "${capability}"`)
}

function sha256(bytes: Buffer): Digest {
  return digestFromHex(createHash('sha256').update(bytes).digest('hex'))
}
