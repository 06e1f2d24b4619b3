import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseImageUser, resolveUser, type UserRequest } from './user.ts'

const passwd = `root:x:0:0:root:/root:/bin/sh
# a comment
broken line
web:x:1000:1000::/srv/web:/bin/sh
big:x:4294967296:0::/:/bin/sh
4294967296:x:0:0::/:/bin/sh
odd:x:1001:1002::/ho\x07me:/bin/sh
`
const group = `root:x:0:
web:x:1000:
audio:x:29:web,other
video:x:44:web
bad:x:99999999999:web
`
const files = { passwd, group }

function request(changes: Partial<UserRequest> = {}): UserRequest {
  return { runAsUsername: '', supplementalGroups: [], supplementalGroupsPolicy: 'merge', ...changes }
}

function refused(changes: Partial<UserRequest>, imageUser: string, message: RegExp): void {
  assert.throws(() => resolveUser(request(changes), imageUser, files), { code: 'invalid', message })
}

test("the image's USER in all its forms", () => {
  const ids = (user: string) => {
    const { uid, gid } = resolveUser(request(), user, files)
    return [uid, gid]
  }
  assert.deepEqual(ids(''), [0, 0])
  assert.deepEqual(ids('web'), [1000, 1000])
  assert.deepEqual(ids('1000'), [1000, 1000])
  assert.deepEqual(ids('4711'), [4711, 0])
  assert.deepEqual(ids('web:audio'), [1000, 29])
  assert.deepEqual(ids('1000:7'), [1000, 7])
  assert.deepEqual(ids('4711:video'), [4711, 44])
  assert.deepEqual(ids('00'), [0, 0])
  assert.deepEqual(ids('0:'), [0, 0])
})

test('a request goes before the image, which then has no say about the group', () => {
  assert.deepEqual(resolveUser(request({ runAsUser: 1000 }), 'root:video', files), {
    uid: 1000,
    gid: 1000,
    supplementalGroups: [1000, 29, 44],
    home: '/srv/web',
  })
  assert.equal(resolveUser(request({ runAsUser: 5, runAsGroup: 6 }), '', files).gid, 6)
  assert.equal(resolveUser(request({ runAsUsername: 'web', runAsGroup: 6 }), '', files).gid, 6)
})

test('CVE-2022-2995: merge adds the groups of the image, strict does not; both hold the primary one, each group once', () => {
  const merged = resolveUser(request({ runAsUser: 1000, supplementalGroups: [29, 5] }), '', files)
  assert.deepEqual(merged.supplementalGroups, [1000, 29, 5, 44])
  const strict = request({ runAsUser: 1000, supplementalGroups: [5], supplementalGroupsPolicy: 'strict' })
  assert.deepEqual(resolveUser(strict, '', files).supplementalGroups, [1000, 5])
})

test('contradictions and unknown names are refused', () => {
  refused({ runAsGroup: 5 }, '', /run_as_group/)
  refused({ runAsUser: 5, runAsUsername: 'web' }, '', /exclude each other/)
  refused({ runAsUsername: 'nobody' }, '', /user "nobody" has no entry/)
  refused({ runAsUsername: '1000' }, '', /no name/)
  refused({}, 'nobody', /user "nobody" has no entry/)
  refused({}, 'web:nogroup', /group "nogroup"/)
  refused({ supplementalGroups: [-1] }, '', /supplemental_groups/)
  refused({ runAsUser: 2 ** 31 }, '', /run_as_user/)
})

test('cve-2024-40635: a number too big is neither a name nor wraps to root', () => {
  for (const user of ['2147483648', '4294967296', '99999999999999999999', '0:4294967296']) {
    refused({}, user, /expected an id from 0 to 2147483647/)
  }
  for (const user of ['+0', ' 0', '0x0', '-1', 'big']) refused({}, user, /has no entry/)
  assert.deepEqual(parseImageUser('1000:5'), { uid: 1000, username: '' })
  assert.deepEqual(parseImageUser('web:web'), { username: 'web' })
  assert.throws(() => parseImageUser('4294967296'), { code: 'invalid' })
})

test('CVE-2022-4318: a home directory with control characters is not taken', () => {
  assert.equal(resolveUser(request({ runAsUsername: 'odd' }), '', files).home, '/')
  assert.equal(resolveUser(request({ runAsUser: 4711 }), '', files).home, '/')
  assert.equal(resolveUser(request(), '', { passwd: '', group: '' }).home, '/')
})

test('any passwd and group files give ids in range or an error', () => {
  const line = fc.array(fc.string({ unit: fc.constantFrom('a', '0', '9', ':', ',', ' ', '#', '-', '\n') }))
  fc.assert(
    fc.property(line, line, fc.constantFrom('', 'a', '0', '9', 'a:a', '00:9'), (users, groups, user) => {
      try {
        const found = resolveUser(request(), user, { passwd: users.join(':'), group: groups.join(':') })
        for (const id of [found.uid, found.gid, ...found.supplementalGroups])
          assert.ok(id >= 0 && id < 2 ** 31)
      } catch (error) {
        assert.equal((error as { code: string }).code, 'invalid')
      }
    }),
  )
})
