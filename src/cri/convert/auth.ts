import { Credentials } from '../../registry/credentials.ts'
import type { AuthConfig__Output } from '../generated/runtime/v1/AuthConfig.ts'

/** undefined for an anonymous pull. */
export function toCredentials(field: string, wire: AuthConfig__Output | null): Credentials | undefined {
  if (wire === null) return undefined
  const { username, password, auth, server_address, identity_token, registry_token } = wire
  return Credentials.from(
    {
      username,
      password,
      auth,
      serverAddress: server_address,
      identityToken: identity_token,
      registryToken: registry_token,
    },
    field,
  )
}
