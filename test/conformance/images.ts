import { readFileSync } from 'node:fs'
import { runtimeFilesOf } from '../support/elf.ts'
import { type BusyboxOptions, busyboxImage, type TestImage } from '../support/images.ts'
import type { TestRegistry } from '../support/registry.ts'

/** Programs that images are made of, as `scripts/setup.sh test` left them. */
export type ImageParts = { readonly nginx: string; readonly nonewprivs: string }

const E2E = 'registry.k8s.io/e2e-test-images'
const STAGING = 'gcr.io/k8s-staging-cri-tools'

/** What stands after `@` in the suite: an image of its authors', whose bytes nobody else can make. */
const UPSTREAM_DIGEST = '9700f9a2f5bf2c45f2f605a0bd3bce7cf37420ec9d3ed50ac2758413308766bf'

const DIRECTORY = { type: '5', mode: 0o755 }

const NGINX_CONF = `user www-data;
pid /var/run/nginx.pid;
error_log stderr;
events {}
http {
  access_log off;
  server { listen 80; root /var/www; }
}
`

/**
 * Everything that critest pulls, under its own names: busybox, and what single specs want to find in it. Images that
 * are told apart by their ids differ in a file.
 * @returns the digest of the image that the suite pulls by digest
 */
export async function pushSuiteImages(registry: TestRegistry, parts: ImageParts): Promise<string> {
  const push = async (repository: string, tags: readonly string[], options: BusyboxOptions = {}) => {
    const image = await busyboxImage(options)
    for (const tag of tags) registry.push(image, repository, tag)
    return image
  }
  const distinct = (name: string, tags: readonly string[] = ['latest']) =>
    push(`${STAGING}/${name}`, tags, { files: { [`/${name}`]: `${name} ${tags[0]}\n` } })

  await push(`${E2E}/busybox`, ['1.29-2'])
  registry.push(await nginxImage(parts.nginx), `${E2E}/nginx`, '1.14-2')
  await push(`${E2E}/httpd`, ['2.4.39-4'], {
    files: { '/www/index.html': 'It works\n' },
    cmd: ['sh', '-c', 'echo httpd started; exec httpd -f -v -p 80 -h /www'],
  })
  await push(`${E2E}/nonewprivs`, ['1.3'], {
    files: { '/nnp': { content: readFileSync(parts.nonewprivs), mode: 0o4755 } },
    cmd: ['/nnp'],
  })
  await distinct('test-image-tag', ['test'])
  await distinct('test-image-tag', ['all'])
  await distinct('test-image-tags', ['1', '2', '3'])
  for (const name of ['test-image-latest', 'test-image-1', 'test-image-2', 'test-image-3'])
    await distinct(name)
  for (const [name, user] of USERS) await push(`${STAGING}/test-image-user-${name}`, ['latest'], { user })
  await push(`${STAGING}/test-image-predefined-group`, ['latest'], {
    user: '1000',
    files: {
      '/etc/passwd': 'root:x:0:0:root:/root:/bin/sh\ndefault-user:x:1000:1000::/home:/bin/sh\n',
      '/etc/group': 'root:x:0:\ndefault-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n',
    },
  })
  await push(`${STAGING}/hostnet-nginx-${architecture()}`, ['latest'], {
    files: { '/www/index.html': 'It works\n' },
    cmd: ['httpd', '-f', '-p', '12003', '-h', '/www'],
  })
  await pushPause(registry)
  return (await distinct('test-image-digest')).digest
}

const USERS = [
  ['uid', '1002'],
  ['username', 'www-data'],
  ['uid-group', '1003:users'],
  ['username-group', 'www-data:www-data'],
] as const

/** One image in two registries. */
async function pushPause(registry: TestRegistry): Promise<void> {
  const image = await busyboxImage({ entrypoint: ['sh', '-c', 'while :; do sleep 3600; done'], cmd: [] })
  for (const host of ['registry.k8s.io', 'k8s.gcr.io']) registry.push(image, `${host}/pause`, '3.9')
}

function nginxImage(nginx: string): Promise<TestImage> {
  const libraries = runtimeFilesOf(nginx).map(path => [path, { content: readFileSync(path), mode: 0o755 }])
  return busyboxImage({
    files: {
      ...Object.fromEntries(libraries),
      '/usr/sbin/nginx': { content: readFileSync(nginx), mode: 0o755 },
      '/etc/nginx/': DIRECTORY,
      '/etc/nginx/nginx.conf': NGINX_CONF,
      '/var/lib/nginx/': DIRECTORY,
      '/var/log/nginx/': DIRECTORY,
      '/var/www/index.html': 'Welcome to nginx!\n',
    },
    cmd: ['nginx', '-g', 'daemon off;'],
  })
}

/** The suite's binary, asking for our image where it asks for its authors' by digest. */
export function withDigest(critest: Buffer, digest: string): Buffer {
  const ours = digest.replace('sha256:', '')
  const at = critest.indexOf(UPSTREAM_DIGEST)
  if (
    at === -1 ||
    critest.indexOf(UPSTREAM_DIGEST, at + 1) !== -1 ||
    ours.length !== UPSTREAM_DIGEST.length
  ) {
    throw new Error('critest does not hold the digest of its test image exactly once: is it another version?')
  }
  const patched = Buffer.from(critest)
  patched.write(ours, at, 'latin1')
  return patched
}

/** Go's name. */
function architecture(): string {
  return { x64: 'amd64' }[process.arch as string] ?? process.arch
}
