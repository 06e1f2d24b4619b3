import { BerthError, invalid, messageOf } from '../base/errors.ts'
import type { Image } from '../model/image.ts'
import { batches } from './batches.ts'
import type { Calls } from './call.ts'
import { toCredentials } from './convert/auth.ts'
import { fromFsUsage, fromImage, toImageReference } from './convert/images.ts'
import { toInfo } from './convert/info.ts'
import type { ImageFilter__Output } from './generated/runtime/v1/ImageFilter.ts'
import type { ImageServiceHandlers } from './generated/runtime/v1/ImageService.ts'
import type { Images, NodeView } from './services.ts'

/** `runtime.v1.ImageService`: all its calls. */
export function imageService(calls: Calls, images: Images, node: NodeView): ImageServiceHandlers {
  return {
    ListImages: calls.read(({ filter }) => ({ images: list(images, filter).map(fromImage) })),

    StreamImages: calls.stream('read', function* ({ filter }) {
      for (const batch of batches(list(images, filter).map(fromImage))) yield { images: batch }
    }),

    ImageStatus: calls.read(({ image: spec, verbose }) => {
      const reference = toImageReference(spec)
      const image = images.status(reference)
      if (image === undefined) return { image: null }
      return { image: fromImage(image), info: verbose ? imageInfo(images, image) : {} }
    }),

    PullImage: calls.write(async ({ image: spec, auth, sandbox_config: pod }, { signal }) => {
      const reference = toImageReference(spec)
      const handler = spec?.runtime_handler ?? ''
      if (handler !== '' && !node.handlers().some(({ name }) => name === handler)) {
        throw invalid('image.runtime_handler', `there is no handler ${JSON.stringify(handler)}`)
      }
      try {
        const credentials = toCredentials('auth', auth)
        const namespace = pod?.metadata?.namespace ?? ''
        return { image_ref: await images.pull(reference, credentials, signal, undefined, namespace) }
      } catch (error) {
        throw asPullFailure(error)
      }
    }),

    RemoveImage: calls.write(async ({ image: spec }) => {
      await images.remove(toImageReference(spec))
      return {}
    }),

    ImageFsInfo: calls.read(() => {
      const usage = fromFsUsage(images.fsUsage())
      return { image_filesystems: [usage], container_filesystems: [usage] }
    }),
  }
}

function list(images: Images, filter: ImageFilter__Output | null): Image[] {
  return images.list(filter?.image?.image ?? '')
}

function imageInfo(images: Images, image: Image): Record<string, string> {
  const details = images.inspect(image.id)
  if (details === undefined) return {}
  return toInfo('info', {
    chainID: details.chainId,
    manifestDigest: details.manifestDigest,
    imageSpec: details.config,
    labels: image.config.labels,
  })
}

/**
 * kubelet reads the kind of a failed pull from the beginning of its message, and looks at the bare message with the
 * code UNKNOWN only.
 */
function asPullFailure(error: unknown): unknown {
  if (!(error instanceof BerthError)) return error
  const itself = ['invalid', 'cancelled', 'deadline', 'unimplemented', 'unknown'].includes(error.code)
  return itself ? error : new BerthError('unknown', messageOf(error), error)
}
