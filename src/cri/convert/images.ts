import { parseImageUser } from '../../containers/spec/user.ts'
import type { Image } from '../../model/image.ts'
import type { DiskUsage } from '../../model/usage.ts'
import type { FilesystemUsage } from '../generated/runtime/v1/FilesystemUsage.ts'
import type { Image as WireImage } from '../generated/runtime/v1/Image.ts'
import type { ImageSpec__Output } from '../generated/runtime/v1/ImageSpec.ts'
import { nonEmptyLine, present } from './fields.ts'

export function toImageReference(spec: ImageSpec__Output | null): string {
  return nonEmptyLine('image.image', present('image', spec).image)
}

/** The same for every name of the image, so nothing of the request is in it. */
export function fromImage(image: Image): WireImage {
  return {
    id: image.id,
    repo_tags: [...image.repoTags],
    repo_digests: [...image.repoDigests],
    size: String(image.size),
    ...fromUser(image.config.user),
    spec: { image: image.id },
    pinned: image.pinned,
  }
}

function fromUser(user: string): Pick<WireImage, 'uid' | 'username'> {
  const { uid, username } = readUser(user)
  return { uid: uid === undefined ? null : { value: uid }, username }
}

/** A user whose number is out of range appears as none, which kubelet takes for root; no container will start. */
function readUser(user: string): { uid?: number; username: string } {
  try {
    return parseImageUser(user)
  } catch {
    return { username: '' }
  }
}

export function fromFsUsage(usage: DiskUsage): FilesystemUsage {
  return {
    timestamp: String(usage.timestamp),
    fs_id: { mountpoint: usage.mountpoint },
    used_bytes: { value: String(usage.usedBytes) },
    inodes_used: { value: String(usage.inodesUsed) },
  }
}
