import { invalid } from '../../base/errors.ts'
import type { Container, Device, Mount } from '../../model/container.ts'
import type { Device__Output } from '../generated/runtime/v1/Device.ts'
import type { ImageSpec__Output } from '../generated/runtime/v1/ImageSpec.ts'
import type { Mount__Output, Mount as WireMount } from '../generated/runtime/v1/Mount.ts'
import type { MountPropagation } from '../generated/runtime/v1/MountPropagation.ts'
import { absolutePath, choice, matching, nonEmptyLine, relativePath } from './fields.ts'
import { fromIdMappings, toIdMappings } from './security.ts'

const PROPAGATIONS = {
  PROPAGATION_PRIVATE: 'private',
  PROPAGATION_HOST_TO_CONTAINER: 'rslave',
  PROPAGATION_BIDIRECTIONAL: 'rshared',
} as const

const WIRE_PROPAGATIONS: Readonly<Record<Mount['propagation'], MountPropagation>> = {
  private: 'PROPAGATION_PRIVATE',
  rslave: 'PROPAGATION_HOST_TO_CONTAINER',
  rshared: 'PROPAGATION_BIDIRECTIONAL',
}

export function toMount(field: string, wire: Mount__Output): Mount {
  const propagation = choice(`${field}.propagation`, wire.propagation, PROPAGATIONS)
  checkRecursiveReadOnly(`${field}.recursive_read_only`, wire)
  return {
    containerPath: containerPath(`${field}.container_path`, wire.container_path),
    ...(wire.image === null ? hostSource(field, wire) : imageSource(field, wire, wire.image)),
    readonly: wire.readonly,
    recursiveReadOnly: wire.recursive_read_only,
    selinuxRelabel: wire.selinux_relabel,
    propagation,
    uidMappings: toIdMappings(`${field}.uidMappings`, wire.uidMappings),
    gidMappings: toIdMappings(`${field}.gidMappings`, wire.gidMappings),
  }
}

/** Kept in the client's spelling: kubelet finds its termination log in the status by this text. */
function containerPath(field: string, path: string): string {
  if (absolutePath(field, path) === '/') throw invalid(field, 'must not be the root directory')
  return path
}

function hostSource(field: string, wire: Mount__Output): Pick<Mount, 'hostPath'> {
  if (wire.image_sub_path !== '') throw invalid(`${field}.image_sub_path`, 'needs image')
  return { hostPath: absolutePath(`${field}.host_path`, wire.host_path) }
}

function imageSource(
  field: string,
  wire: Mount__Output,
  image: ImageSpec__Output,
): Pick<Mount, 'hostPath' | 'image'> {
  if (wire.host_path !== '') throw invalid(`${field}.host_path`, 'must be empty with image')
  if (!wire.readonly) throw invalid(`${field}.readonly`, 'must be true with image')
  const subPath = wire.image_sub_path
  return {
    hostPath: '',
    image: {
      ref: nonEmptyLine(`${field}.image.image`, image.image),
      subPath: subPath === '' ? '' : relativePath(`${field}.image_sub_path`, subPath),
    },
  }
}

function checkRecursiveReadOnly(field: string, wire: Mount__Output): void {
  if (!wire.recursive_read_only) return
  if (!wire.readonly) throw invalid(field, 'needs readonly')
  if (wire.propagation !== 'PROPAGATION_PRIVATE') throw invalid(field, 'needs PROPAGATION_PRIVATE')
}

/** Exactly the mounts of the request, with the id of the image behind an image mount. */
export function fromMounts({ config, imageMounts }: Container): WireMount[] {
  return config.mounts.map(mount => ({
    container_path: mount.containerPath,
    host_path: mount.hostPath,
    readonly: mount.readonly,
    selinux_relabel: mount.selinuxRelabel,
    propagation: WIRE_PROPAGATIONS[mount.propagation],
    uidMappings: fromIdMappings(mount.uidMappings),
    gidMappings: fromIdMappings(mount.gidMappings),
    recursive_read_only: mount.recursiveReadOnly,
    ...(mount.image === undefined
      ? {}
      : {
          image: { image: mount.image.ref, image_ref: imageMounts[mount.containerPath] ?? '' },
          image_sub_path: mount.image.subPath,
        }),
  }))
}

export function toDevice(field: string, wire: Device__Output): Device {
  return {
    containerPath: absolutePath(`${field}.container_path`, wire.container_path),
    hostPath: absolutePath(`${field}.host_path`, wire.host_path),
    permissions: matching(`${field}.permissions`, wire.permissions, /^[rwm]{1,3}$/, 'some of r, w and m'),
  }
}
