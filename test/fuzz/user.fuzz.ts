import assert from 'node:assert/strict'
import { resolveUser } from '../../src/containers/spec/user.ts'
import { type FuzzTarget, mutated } from './target.ts'

const passwd = [
  'root:x:0:0:root:/root:/bin/sh',
  'www:x:33:33::/var/www:/bin/false',
  '4294967296:x:0:0::/:/bin/sh',
  'evil:x:1000:1000::/home\x1b:/bin/sh',
].join('\n')
const group = 'root:x:0:\nusers:x:100:www,evil\nbad:x:-1:www\nwheel:x:10:www\n'
const seeds = ['www', '33:users', '4294967296', 'evil:100', '', '00', 'root:'].map(
  user => `${user}\0${passwd}\0${group}`,
)

/** The image's USER, /etc/passwd and /etc/group, each ended by a NUL, resolved as an image alone would be. */
export const target: FuzzTarget = {
  inputs: mutated(seeds, [':', '::', '\n', '2147483648', '2147483647', '-0', '+0', '0x0', ' 0', '#', ',']),
  run(input) {
    const [user = '', passwd = '', group = ''] = input.toString().split('\0')
    const request = { runAsUsername: '', supplementalGroups: [], supplementalGroupsPolicy: 'merge' } as const
    const { uid, gid, supplementalGroups, home } = resolveUser(request, user, { passwd, group })
    for (const id of [uid, gid, ...supplementalGroups])
      assert.ok(Number.isInteger(id) && id >= 0 && id < 2 ** 31)
    assert.ok(supplementalGroups.includes(gid))
    assert.match(home, /^\/[^\x00-\x1f\x7f]*$/)
    // A number is never looked up as a name.
    const [name = ''] = user.split(':')
    if (/^[0-9]+$/.test(name)) assert.equal(uid, Number(name))
  },
  runs: 4000,
}
