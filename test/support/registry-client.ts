import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { inspect } from 'node:util'
import { BerthError } from '../../src/base/errors.ts'
import { createRegistry, type RegistryOptions } from '../../src/registry/client.ts'
import type { Credentials } from '../../src/registry/credentials.ts'
import { parseReference } from '../../src/registry/reference.ts'
import type { Registry, ResolvedManifest } from '../../src/registry/registry.ts'
import { type ImageOptions, imageOf, type TestImage } from './images.ts'
import { layerOf } from './layers.ts'
import { TestProxy } from './proxy.ts'
import { type RegistryOptions as ServerOptions, TestRegistry } from './registry.ts'
import { linesWithSecrets } from './secrets.ts'

export const signal: AbortSignal = new AbortController().signal

/** One plain layer of some 300 000 bytes. */
export async function smallImage(options: ImageOptions = {}): Promise<TestImage> {
  const content = Buffer.alloc(300_000, 'berth ')
  return imageOf([await layerOf([{ name: 'file', content }], 'none')], options)
}

export async function startServer(t: TestContext, options: ServerOptions = {}): Promise<TestRegistry> {
  const registry = await TestRegistry.start(options)
  t.after(() => registry.close())
  return registry
}

export async function startProxy(
  t: TestContext,
  routes: Readonly<Record<string, string>>,
): Promise<TestProxy> {
  const proxy = await TestProxy.start(routes)
  t.after(() => proxy.close())
  return proxy
}

/** The product's client with this registries.conf and short pauses. */
export function startClient(t: TestContext, conf = '', options: Partial<RegistryOptions> = {}): Registry {
  const directory = temporaryDirectory(t)
  writeFileSync(join(directory, 'registries.conf'), conf)
  const registry = createRegistry({
    registriesConf: join(directory, 'registries.conf'),
    registriesConfDir: join(directory, 'registries.conf.d'),
    authFiles: [],
    certDirs: [],
    userAgent: 'berth/test',
    platform: { os: 'linux', architecture: 'amd64' },
    retry: { tries: 3, baseMs: 1, maxMs: 20 },
    ...options,
  })
  t.after(() => registry.close())
  return registry
}

export function temporaryDirectory(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'berth-registry-'))
  t.after(() => rmSync(directory, { recursive: true }))
  return directory
}

/** A registries.conf in which `registry.test` is at these places; the last is the registry itself. */
export function mirrors(...places: readonly string[]): string {
  const mirror = (place: string) => `[[registry.mirror]]\nlocation = "${place}"\n`
  const own = `[[registry]]\nprefix = "registry.test"\nlocation = "${places.at(-1)}"\n`
  return own + places.slice(0, -1).map(mirror).join('')
}

export function resolve(
  registry: Registry,
  name: string,
  credentials?: Credentials,
): Promise<ResolvedManifest> {
  return registry.repository(parseReference(name), credentials).resolve(signal)
}

/** Downloads the lowest layer and compares it with what was pushed. */
export async function checkLayer(registry: Registry, name: string, image: TestImage): Promise<void> {
  const repository = registry.repository(parseReference(name), undefined)
  const { layers } = await repository.resolve(signal)
  const bytes = Buffer.concat(await repository.openBlob(layers[0]!, signal).toArray())
  const digest = createHash('sha256').update(bytes).digest('hex')
  assert.equal(`sha256:${digest}`, image.layers[0]!.blob.digest)
}

/** For assert.rejects: a BerthError with this code and a message that matches, and no secret (`geheim`) in it. */
export function saying(code: string, pattern: RegExp) {
  return (error: unknown): true => {
    assert.ok(error instanceof BerthError, inspect(error))
    assert.equal(error.code, code, error.message)
    assert.match(error.message, pattern)
    assert.deepEqual(
      linesWithSecrets(inspect(error, { depth: 9 }), ['geheim']),
      [],
      'a secret is in the error',
    )
    return true
  }
}
