import { createHash } from 'node:crypto'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { effectSync } from '../base/effects.ts'
import { AuthFiles, type CredentialSource, sourcesOf } from './auth-files.ts'
import { CredentialHelpers } from './credential-helper.ts'
import type { Credentials } from './credentials.ts'
import type { Endpoint } from './endpoint.ts'
import { readText } from './read-text.ts'
import type { Reference } from './reference.ts'
import type { Registries } from './registries.ts'
import { AUTH_FILES_HELPER } from './registries-file.ts'

export type NodeCredentialsOptions = {
  /** auth.json and config.json files, the most important first; they need not exist. */
  readonly authFiles: readonly string[]
  /** Directory of auth files that are for one pull of one namespace; '' for none. */
  readonly namespacedAuthDir: string
  /** The whole environment of credential helpers; they are looked for in its PATH. */
  readonly helperEnv: Readonly<Record<string, string>>
}

/** An auth file that stands for one pull. */
export type NamespaceAuth = { readonly file: string; readonly source: string }

/** As Kubernetes names namespaces (RFC 1123 label): never a path. */
const NAMESPACE = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/

/** The credentials that the node has for pulls whose request brings none. */
export class NodeCredentials {
  readonly #options: NodeCredentialsOptions
  readonly #files: AuthFiles
  readonly #helpers: CredentialHelpers

  constructor(options: NodeCredentialsOptions) {
    this.#options = options
    this.#files = new AuthFiles(options.authFiles)
    this.#helpers = new CredentialHelpers(options.helperEnv)
  }

  /** Where the auth file of a namespace's pull would be: as CRI-O's credential provider writes it. */
  namespaceFile(reference: Reference, namespace: string): string | undefined {
    const { namespacedAuthDir } = this.#options
    if (namespacedAuthDir === '' || !NAMESPACE.test(namespace)) return undefined
    const name = createHash('sha256').update(reference.name).digest('hex')
    return join(namespacedAuthDir, `${namespace}-${name}.json`)
  }

  /**
   * Takes the auth file of this pull, if there is one: it is read, then removed, since it was written for one pull.
   *
   * @throws BerthError unknown, naming the file
   */
  takeNamespaceAuth(reference: Reference, namespace: string): NamespaceAuth | undefined {
    const file = this.namespaceFile(reference, namespace)
    const source = file === undefined ? undefined : readText(file)
    if (file === undefined || source === undefined) return undefined
    effectSync('registry', 'remove-auth-file', file, () => rmSync(file, { force: true }))
    return { file, source }
  }

  /**
   * What may have credentials for an endpoint, in the order in which it counts. Nothing comes after credentials; a
   * helper may know none.
   *
   * @throws BerthError unknown, naming the file that cannot be understood
   */
  sources(
    endpoint: Endpoint,
    registries: Registries,
    namespaceAuth: NamespaceAuth | undefined,
  ): readonly CredentialSource[] {
    const own =
      namespaceAuth === undefined ? [] : sourcesOf(namespaceAuth.file, namespaceAuth.source, endpoint)
    const { value: helpers, origin } = registries.credentialHelpers
    const all = [
      ...own,
      ...helpers.flatMap(helper =>
        helper === AUTH_FILES_HELPER
          ? this.#files.find(endpoint)
          : [{ origin: `${origin} (credential-helpers)`, helper }],
      ),
    ]
    const last = all.findIndex(source => 'credentials' in source)
    return last < 0 ? all : all.slice(0, last + 1)
  }

  /** @throws Failure of a helper; BerthError cancelled */
  async first(
    sources: readonly CredentialSource[],
    endpoint: Endpoint,
    signal: AbortSignal,
  ): Promise<Credentials | undefined> {
    for (const source of sources) {
      if ('credentials' in source) return source.credentials
      const found = await this.#helpers.get(source.helper, endpoint.host, signal)
      if (found !== undefined) return found
    }
    return undefined
  }
}
