import type { Digest } from '../base/digest.ts'
import { BerthError, messageOf } from '../base/errors.ts'
import type { Image, ImageConfig } from '../model/image.ts'
import type { Log } from '../observe/log.ts'
import type { Credentials } from '../registry/credentials.ts'
import type { Platform } from '../registry/platform.ts'
import type { Reference } from '../registry/reference.ts'
import type { Registry, Repository, ResolvedManifest } from '../registry/registry.ts'
import type { Database } from '../state/database.ts'
import type { LayerReport } from './fetch-layer.ts'
import { parseImageConfig } from './image-config.ts'
import type { ImageIndex, ImageName } from './image-index.ts'
import type { LayerLeases } from './layer-leases.ts'
import type { LayerStore } from './layer-store.ts'
import { attachedIn } from './policy/admit-image.ts'
import type { AcceptedSignature, Policies } from './policy/policies.ts'
import { asPullError, causeOf, type PullFailure } from './pull-error.ts'
import type { PullPlan } from './pull-progress.ts'
import { summarize } from './pull-summary.ts'
import { planOf, recordImage } from './record-image.ts'

/** Manifests may have 4 MiB (distribution spec "Pushing Manifests"); real configurations have some KiB. */
const MAX_CONFIG = 4 * 1024 * 1024

export type PullContext = {
  readonly db: Database
  readonly registry: Registry
  readonly policies: Policies
  readonly index: ImageIndex
  readonly layers: LayerStore
  readonly leases: LayerLeases
  readonly platform: Platform
  readonly log: Log
  readonly observer: PullObserver | undefined
  /** Layers of a pull that failed: its next try continues with them. */
  keepForRetry(chainIds: readonly Digest[]): void
}

export type PullRequest = {
  readonly name: string
  readonly credentials: Credentials | undefined
  /** Of the pod that the image is for; '' if it is for none. */
  readonly namespace: string
}

/** Told of each pull that ended. */
export interface PullObserver {
  onPull(seconds: number, failure: PullFailure | undefined): void
}

export type PulledImage = { readonly id: Digest; readonly plan: PullPlan }

/**
 * One pull, from the name to the rows. The registry is asked in any case, with the caller's credentials: that is what
 * lets somebody use an image which is here already. So is the policy. The image becomes visible in one transaction at the end.
 *
 * @param announce told the layers as soon as they are known
 * @throws BerthError invalid for a malformed name; not-found, unknown, cancelled
 */
export async function pullImage(
  context: PullContext,
  request: PullRequest,
  signal: AbortSignal,
  announce: (plan: PullPlan) => void,
): Promise<PulledImage> {
  const started = performance.now()
  try {
    const pulled = await resolveAndPull(context, request, signal, announce)
    context.observer?.onPull((performance.now() - started) / 1000, undefined)
    return pulled
  } catch (error) {
    context.observer?.onPull((performance.now() - started) / 1000, causeOf(error))
    throw error
  }
}

async function resolveAndPull(
  context: PullContext,
  request: PullRequest,
  signal: AbortSignal,
  announce: (plan: PullPlan) => void,
): Promise<PulledImage> {
  const startedAt = performance.now()
  const found = await resolveName(context, request, signal)
  const { reference, repository, resolved } = found
  try {
    // Also for what is here already, and before anything else of the image is read.
    const digests = [resolved.digest, resolved.manifestDigest]
    const read = attachedIn(repository, signal)
    const signatures = await context.policies.check(reference, digests, request.namespace, read)
    let plan: PullPlan = []
    let resolvedAt = 0
    const { image, reports } = await pullResolved(context, found, signatures, signal, known => {
      resolvedAt = performance.now()
      plan = known
      announce(known)
    })
    const summary = summarize({ startedAt, resolvedAt, reports, endedAt: performance.now() })
    const what = { image: `${reference}`, imageId: image.id, bytes: image.size, layers: plan.length }
    const reused = plan.length - reports.length
    const endpoint = summary.endpoint || resolved.endpoint
    context.log.info({ ...what, reused, ...summary, endpoint }, 'image pulled')
    return { id: image.id, plan }
  } catch (error) {
    throw asPullError(`${reference}`, error)
  }
}

type Resolved = {
  readonly reference: Reference
  readonly repository: Repository
  readonly resolved: ResolvedManifest
}

/** The first meaning of the name that a registry has. */
async function resolveName(
  { registry }: PullContext,
  { name, credentials, namespace }: PullRequest,
  signal: AbortSignal,
): Promise<Resolved> {
  const errors: BerthError[] = []
  for (const reference of registry.candidates(name)) {
    try {
      const repository = registry.repository(reference, credentials, namespace)
      return { reference, repository, resolved: await repository.resolve(signal) }
    } catch (error) {
      if (signal.aborted) throw error
      errors.push(asPullError(`${reference}`, error))
    }
  }
  throw nothingResolved(name, errors)
}

function nothingResolved(name: string, errors: readonly BerthError[]): BerthError {
  if (errors.length === 1) return errors[0]!
  const messages = errors.map(messageOf).join('; ')
  const code = errors.every(error => error.code === 'not-found') ? 'not-found' : 'unknown'
  // With different kinds of failures, the first one's must not stand at the beginning.
  const isAlike = errors.every(({ message }) => message.startsWith('RegistryUnavailable: '))
  return new BerthError(code, isAlike ? messages : `${name}: ${messages}`, errors.at(-1))
}

async function pullResolved(
  context: PullContext,
  { reference, repository, resolved }: Resolved,
  signatures: readonly AcceptedSignature[],
  signal: AbortSignal,
  announce: (plan: PullPlan) => void,
): Promise<{ readonly image: Image; readonly reports: readonly LayerReport[] }> {
  const { db, layers, leases } = context
  const rawConfig =
    db.read.images.rawConfig(resolved.config.digest) ??
    (await repository.readBlob(resolved.config, MAX_CONFIG, signal))
  const config = readConfig(rawConfig, resolved, context.platform)
  const plan = planOf(config, resolved.layers)
  const ids = plan.map(layer => layer.chainId)
  const release = leases.hold(ids)
  try {
    announce(plan.map(layer => ({ ...layer, existed: layers.has(layer.chainId) })))
    const reports = await layers.fetch({ reference: `${reference}`, repository, layers: plan }, signal)
    const { manifestDigest: digest, mediaType, manifestBytes: bytes } = resolved
    const image = recordImage(context, {
      id: resolved.config.digest,
      names: namesOf(reference, resolved.digest),
      config,
      rawConfig,
      manifest: { digest, mediaType, bytes },
      layers: resolved.layers,
      signatures,
      topLayer: ids.at(-1),
    })
    leases.unkeep(ids)
    return { image, reports }
  } catch (error) {
    context.keepForRetry(ids)
    throw error
  } finally {
    release()
  }
}

function readConfig(bytes: Buffer, resolved: ResolvedManifest, platform: Platform): ImageConfig {
  try {
    return parseImageConfig(bytes, platform, resolved.layers.length)
  } catch (error) {
    throw new Error(`image configuration ${resolved.config.digest}: ${messageOf(error)}`, { cause: error })
  }
}

/** A digest that was asked for is no tag; a tag is recorded as it was asked for, whatever mirror it came from. */
function namesOf(reference: Reference, digest: Digest): ImageName[] {
  const names: ImageName[] = [{ name: `${reference.withDigest(digest)}`, kind: 'digest' }]
  if (reference.tag !== undefined) names.push({ name: `${reference}`, kind: 'tag' })
  return names
}
