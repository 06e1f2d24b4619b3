import { join } from 'node:path'
import { loadPackageDefinition } from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'
import { withItemsEncodedOnce } from './encode-once.ts'
import type { ProtoGrpcType as AdminProto } from './generated/admin.ts'
import type { ProtoGrpcType as CriProto } from './generated/api.ts'
import type { AdminDefinition } from './generated/berth/admin/v1/Admin.ts'
import type { ImageAdminDefinition } from './generated/berth/admin/v1/ImageAdmin.ts'
import type { ProtoGrpcType as ImageAdminProto } from './generated/image-admin.ts'
import type { ImageServiceDefinition } from './generated/runtime/v1/ImageService.ts'
import type { RuntimeServiceDefinition } from './generated/runtime/v1/RuntimeService.ts'
import { withBoundedRequests } from './request-size.ts'

export type ServiceDefinitions = {
  readonly runtime: RuntimeServiceDefinition
  readonly image: ImageServiceDefinition
  readonly admin: AdminDefinition
  readonly imageAdmin: ImageAdminDefinition
}

/**
 * Reads the interface definitions from `protoDir` (the repository's `proto/`, or its copy beside the bundle). 64-bit
 * numbers are decimal strings and enums their names; an enum value that this version does not know stays a number.
 * The options must be those with which the types in `generated/` were made.
 */
export function loadServices(protoDir: string): ServiceDefinitions {
  const services = loaded.get(protoDir) ?? parse(protoDir)
  loaded.set(protoDir, services)
  return services
}

/** By directory: parsing takes 50 ms. */
const loaded = new Map<string, ServiceDefinitions>()

function parse(protoDir: string): ServiceDefinitions {
  const files = ['runtime/v1/api.proto', 'admin.proto', 'image-admin.proto'].map(file => join(protoDir, file))
  const definition = loadSync(files, {
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
  })
  const grpc = loadPackageDefinition(definition) as unknown as CriProto & AdminProto & ImageAdminProto
  const runtime = withBoundedRequests(grpc.runtime.v1.RuntimeService.service, definition)
  return {
    runtime: {
      ...runtime,
      ListPodSandbox: withItemsEncodedOnce(runtime.ListPodSandbox, 'items'),
      ListContainers: withItemsEncodedOnce(runtime.ListContainers, 'containers'),
    },
    image: withBoundedRequests(grpc.runtime.v1.ImageService.service, definition),
    admin: withBoundedRequests(grpc.berth.admin.v1.Admin.service, definition),
    imageAdmin: withBoundedRequests(grpc.berth.admin.v1.ImageAdmin.service, definition),
  }
}
