import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fakeServices, sampleImage } from '../../test/support/cri.ts'
import { serve } from '../../test/support/cri-server.ts'
import { BerthError } from '../base/errors.ts'
import type { Image } from '../model/image.ts'
import type { Credentials } from '../registry/credentials.ts'
import { fromImage } from './convert/images.ts'

const image = sampleImage()

function withUser(user: string): Image {
  return { ...image, config: { ...image.config, user } }
}

test('an image has either the number or the name of its user', () => {
  const userOf = (user: string) => {
    const { uid, username } = fromImage(withUser(user))
    return [uid, username]
  }
  assert.deepEqual(userOf(''), [null, ''])
  assert.deepEqual(userOf('1000:1000'), [{ value: 1000 }, ''])
  assert.deepEqual(userOf('0'), [{ value: 0 }, ''])
  assert.deepEqual(userOf('web:web'), [null, 'web'])
  assert.deepEqual(userOf('2147483648'), [null, ''])
})

test('ListImages and StreamImages filter by the reference', async context => {
  const asked: string[] = []
  const list = (reference: string) => {
    asked.push(reference)
    return [image]
  }
  const { client } = await serve(context, { services: fakeServices({ images: { list } }) })
  const { images } = await client.image('ListImages', { filter: { image: { image: 'web' } } })
  assert.deepEqual(images, [
    {
      id: image.id,
      repo_tags: image.repoTags,
      repo_digests: image.repoDigests,
      size: '5000000000',
      uid: null,
      username: '',
      spec: {
        image: image.id,
        annotations: {},
        user_specified_image: '',
        runtime_handler: '',
        image_ref: '',
      },
      pinned: false,
    },
  ])
  assert.deepEqual((await client.image('ListImages', {})).images, images)
  assert.deepEqual(asked, ['web', ''])
})

test('ImageStatus: an image that is absent is no error; info has its configuration', async context => {
  const { client } = await serve(context, {
    services: fakeServices({
      images: {
        status: reference => (reference === 'web' ? image : undefined),
        inspect: () => ({ config: { os: 'linux' }, chainId: 'sha256:c', manifestDigest: 'sha256:m' }),
      },
    }),
  })
  const absent = await client.image('ImageStatus', { image: { image: 'gone' }, verbose: true })
  assert.deepEqual(absent, { image: null, info: {} })
  const { info } = await client.image('ImageStatus', { image: { image: 'web' }, verbose: true })
  assert.deepEqual(JSON.parse(info.info!), {
    chainID: 'sha256:c',
    manifestDigest: 'sha256:m',
    imageSpec: { os: 'linux' },
    labels: {},
  })
  assert.deepEqual((await client.image('ImageStatus', { image: { image: 'web' } })).info, {})
  const unnamed = { code: 'invalid', message: /^image/ }
  await assert.rejects(client.image('ImageStatus', {}), unnamed)
  await assert.rejects(client.image('ImageStatus', { image: { image: '' } }), unnamed)
  await assert.rejects(client.image('RemoveImage', {}), unnamed)
  await assert.rejects(client.image('PullImage', { image: { image: 'a\nb' } }), unnamed)
})

test('PullImage answers with the id and passes credentials and the namespace of the pod on', async context => {
  const seen: Array<[string, Credentials | undefined, string | undefined]> = []
  const { client } = await serve(context, {
    services: fakeServices({
      images: {
        pull: async (reference, credentials, _signal, _onProgress, namespace) => {
          seen.push([reference, credentials, namespace])
          return image.id
        },
      },
    }),
  })
  const pod = { metadata: { name: 'web', uid: 'u', namespace: 'team-a', attempt: 0 } }
  const reply = await client.image('PullImage', { image: { image: 'web', runtime_handler: 'runc' } })
  assert.deepEqual(reply, { image_ref: image.id })
  await client.image('PullImage', {
    image: { image: 'web' },
    auth: { username: 'u', password: 'p', server_address: 'https://registry.example/v2/' },
  })
  await client.image('PullImage', { image: { image: 'web' }, auth: {}, sandbox_config: pod })
  assert.deepEqual(
    seen.map(([reference, secret, namespace]) => [reference, secret?.basic, secret?.server, namespace]),
    [
      ['web', undefined, undefined, ''],
      ['web', `Basic ${Buffer.from('u:p').toString('base64')}`, 'registry.example', ''],
      ['web', undefined, undefined, 'team-a'],
    ],
  )
  const handler = client.image('PullImage', { image: { image: 'web', runtime_handler: 'none' } })
  await assert.rejects(handler, {
    code: 'invalid',
    message: 'image.runtime_handler: there is no handler "none"',
  })
})

test('a pull that fails is UNKNOWN with the bare message, unless the request itself is at fault', async context => {
  let failure = new BerthError('unavailable', 'RegistryUnavailable: registry.example does not answer')
  const { client } = await serve(context, {
    services: fakeServices({
      images: {
        pull: async () => {
          throw failure
        },
      },
    }),
  })
  const pull = () => client.image('PullImage', { image: { image: 'web' } })
  await assert.rejects(pull(), { code: 'unknown', message: failure.message })
  failure = new BerthError('not-found', 'no such tag')
  await assert.rejects(pull(), { code: 'unknown', message: 'no such tag' })
  failure = new BerthError('invalid', 'image.image: not a name')
  await assert.rejects(pull(), { code: 'invalid' })
  failure = new BerthError('cancelled', 'the caller gave up')
  await assert.rejects(pull(), { code: 'cancelled' })
})

test('RemoveImage and ImageFsInfo', async context => {
  const removed: string[] = []
  const { client } = await serve(context, {
    services: fakeServices({
      images: {
        remove: async reference => void removed.push(reference),
        fsUsage: () => ({
          timestamp: 5n,
          mountpoint: '/var/lib/berth',
          usedBytes: 2n ** 55n,
          inodesUsed: 0n,
        }),
      },
    }),
  })
  assert.deepEqual(await client.image('RemoveImage', { image: { image: 'web' } }), {})
  assert.deepEqual(removed, ['web'])
  const usage = {
    timestamp: '5',
    fs_id: { mountpoint: '/var/lib/berth' },
    used_bytes: { value: '36028797018963968' },
    inodes_used: { value: '0' },
  }
  assert.deepEqual(await client.image('ImageFsInfo', {}), {
    image_filesystems: [usage],
    container_filesystems: [usage],
  })
})
