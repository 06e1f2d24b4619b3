import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { paxHeader, tar, tarBlock, tarEntry } from '../../test/support/tar.ts'
import { type TarEntry, TarReader } from './layer-tar.ts'

type Read = TarEntry & { readonly content: Buffer }

/** Everything in an archive that is pushed in pieces of these sizes, over and over. */
function read(archive: Buffer, pieces: readonly number[] = [archive.length]): Read[] {
  const entries: Read[] = []
  let current: TarEntry | undefined
  let content: Buffer[] = []
  const reader = new TarReader({
    entry(entry) {
      assert.equal(current, undefined, 'an entry begins before the one before it has ended')
      current = entry
      content = []
    },
    content: chunk => content.push(Buffer.from(chunk)),
    endOfEntry() {
      entries.push({ ...current!, content: Buffer.concat(content) })
      current = undefined
    },
  })
  for (let at = 0, i = 0; at < archive.length; i++) {
    const size = Math.max(1, pieces[i % pieces.length]!)
    reader.push(archive.subarray(at, at + size))
    at += size
  }
  reader.end()
  return entries
}

/** The header of the empty file `f` after `change`. */
function header(change: (block: Buffer) => void): Buffer {
  return tarBlock(block => {
    block.write('f', 0)
    change(block)
  })
}

test('every kind of entry, with its fields', () => {
  const entries = read(
    tar([
      { name: 'dir/', mode: 0o1777, mtime: 1_600_000_000 },
      { name: 'dir/file', content: 'hello', mode: 0o4755, uid: 1000, gid: 2_000_000_000 },
      { name: 'dir/hard', link: 'dir/file' },
      { name: 'soft', symlink: '../../etc/passwd' },
      { name: 'null', type: '3', major: 1, minor: 3 },
      { name: 'disk', type: '4', major: 259, minor: 70_000 },
      { name: 'pipe', type: '6' },
      { name: `${'long/'.repeat(60)}end`, content: 'x'.repeat(1500) },
      { name: 'contiguous', type: '7', content: 'c' },
    ]),
  )
  assert.deepEqual(
    entries.map(entry => entry.type),
    ['directory', 'file', 'hardlink', 'symlink', 'char', 'block', 'fifo', 'file', 'file'],
  )
  const [dir, file, hard, soft, device, disk, , long] = entries
  assert.equal(dir!.mode, 0o1777)
  assert.equal(dir!.mtime, 1_600_000_000)
  assert.equal(file!.content.toString(), 'hello')
  assert.deepEqual([file!.mode, file!.uid, file!.gid], [0o4755, 1000, 2_000_000_000])
  assert.equal(hard!.linkName, 'dir/file')
  assert.equal(soft!.linkName, '../../etc/passwd')
  assert.deepEqual([device!.major, device!.minor], [1, 3])
  assert.deepEqual([disk!.major, disk!.minor], [259, 70_000])
  assert.equal(long!.name, `${'long/'.repeat(60)}end`)
  assert.equal(long!.content.length, 1500)
})

test('pieces of every size give the same entries', () => {
  const archive = tar([
    { name: 'a', content: 'a'.repeat(513), xattrs: { 'user.x': Buffer.from([0, 0xff]) } },
    { name: 'd/' },
    { name: `${'n'.repeat(90)}/${'m'.repeat(90)}`, content: '' },
    { name: 'last', content: 'b'.repeat(512) },
  ])
  const whole = read(archive)
  assert.equal(whole.length, 4)
  for (let size = 1; size <= 1100; size++) assert.deepEqual(read(archive, [size]), whole, `pieces of ${size}`)
  for (let border = 1; border < archive.length; border++) {
    assert.deepEqual(read(archive, [border, archive.length]), whole, `border at ${border}`)
  }
})

test('any archive in any pieces reads back as it was written', () => {
  const bytes = (maxLength: number) => fc.uint8Array({ maxLength }).map(array => Buffer.from(array))
  const name = fc
    .array(fc.integer({ min: 1, max: 255 }), { minLength: 1, maxLength: 300 })
    .map(codes => Buffer.from([...codes, 0x61]))
  const entry = fc.record({
    name,
    content: bytes(1600),
    mode: fc.nat(0o7777),
    uid: fc.integer({ min: 0, max: 4_000_000_000 }),
    mtime: fc.integer({ min: 0, max: 8 ** 11 - 1 }),
    xattrs: fc.dictionary(fc.stringMatching(/^user\.[a-z]{1,20}$/), bytes(100)),
  })
  const pieces = fc.array(fc.integer({ min: 1, max: 2000 }), { minLength: 1, maxLength: 20 })
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 6 }), pieces, (written, sizes) => {
      const entries = read(tar(written), sizes)
      assert.deepEqual(
        entries.map(({ name, content, mode, uid, mtime, xattrs }) => ({
          name: Buffer.from(name, 'latin1'),
          content,
          mode,
          uid,
          mtime,
          xattrs: Object.fromEntries(xattrs),
        })),
        written.map(one => ({ ...one, xattrs: { ...one.xattrs } })),
      )
    }),
    { numRuns: 200 },
  )
})

test('any bytes are either read or refused with a reason', () => {
  const valid = tar([paxHeader([['mtime', '1.5']]), { name: 'f', content: 'data' }])
  const change = fc.tuple(fc.nat(valid.length - 1), fc.nat(255))
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 8 }), changes => {
      const archive = Buffer.from(valid)
      for (const [at, byte] of changes) archive[at] = byte
      try {
        read(archive)
      } catch (error) {
        assert.match((error as Error).message, /^tar: /)
      }
    }),
    { numRuns: 2000 },
  )
})

test('names and attributes stay bytes', () => {
  const odd = Buffer.from([0x61, 0x80, 0xff, 0xc3])
  const value = Buffer.from([0x01, 0, 0, 0x02, 0x80, 0xff, 0x0a, 0x3d])
  const [plain, extended] = read(
    tar([{ name: odd }, { name: 'short', pax: { path: odd }, xattrs: { 'security.capability': value } }]),
  )
  assert.deepEqual(Buffer.from(plain!.name, 'latin1'), odd)
  assert.deepEqual(Buffer.from(extended!.name, 'latin1'), odd)
  assert.deepEqual(extended!.xattrs.get('security.capability'), value)
})

test('PAX wins over the header and GNU names over both, for one entry only', () => {
  const [first, second] = read(
    tar([
      paxHeader([
        ['path', 'pax'],
        ['size', '3'],
        ['uid', '4000000000'],
        ['mtime', '12.25'],
        ['linkpath', ''],
      ]),
      { name: '././@LongLink', type: 'L', content: `${'g'.repeat(200)}\0` },
      { name: '././@LongLink', type: 'K', content: 'target\0' },
      { name: 'plain', content: 'abc', claimedSize: 0 },
      { name: 'next' },
    ]),
  )
  assert.equal(first!.name, 'g'.repeat(200))
  assert.equal(first!.linkName, 'target')
  assert.deepEqual([first!.size, first!.uid, first!.mtime], [3, 4_000_000_000, 12.25])
  assert.equal(first!.content.toString(), 'abc')
  assert.deepEqual([second!.name, second!.uid, second!.linkName], ['next', 0, ''])
})

test('a global header changes nothing', () => {
  const entries = read(
    tar([
      { name: 'g', type: 'g', content: '13 path=evil\n' },
      { name: 'f', content: 'x' },
    ]),
  )
  assert.deepEqual(
    entries.map(entry => entry.name),
    ['f'],
  )
})

test('numbers in base 256, with a sign', () => {
  const archive = header(block => {
    block.writeUInt8(0x80, 108)
    block.writeUInt32BE(3_000_000_000, 112)
    block.fill(0xff, 136, 148) // −1
  })
  assert.deepEqual(
    read(archive).map(({ uid, mtime }) => ({ uid, mtime })),
    [{ uid: 3_000_000_000, mtime: -1 }],
  )
})

test('numbers padded with spaces, or missing, and a checksum of signed bytes', () => {
  const spaced = header(block => {
    block.write('  755 \0 ', 100)
    block.write('          5 ', 124)
  })
  const [entry] = read(Buffer.concat([spaced, Buffer.from('hello'), Buffer.alloc(507)]))
  assert.deepEqual([entry!.mode, entry!.uid, entry!.content.toString()], [0o755, 0, 'hello'])

  const signed = header(block => block.writeUInt8(0xe9, 0))
  const sum = signed.reduce(
    (total, byte, at) => total + (at >= 148 && at < 156 ? 0x20 : (byte << 24) >> 24),
    0,
  )
  signed.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  assert.equal(read(signed)[0]!.name, '\xe9')
})

test('the prefix of ustar names, which GNU archives use for times and star for less', () => {
  const write = (magic: string, star = false) =>
    header(block => {
      block.write(magic, 257, 'latin1')
      block.write('some/prefix', 345)
      if (star) block.write('x'.repeat(20), 345 + 131)
      if (star) block.write('tar\0', 508, 'latin1')
    })
  assert.equal(read(write('ustar\x0000'))[0]!.name, 'some/prefix/f')
  assert.equal(read(write('ustar\x0000', true))[0]!.name, 'some/prefix/f')
  assert.equal(read(write('ustar  \0'))[0]!.name, 'f')
})

test('links and directories have no content, whatever their size says', () => {
  const entries = read(
    tar([
      { name: 'l', link: 'f', claimedSize: 5000 },
      { name: 'd/', claimedSize: 600 },
      { name: 'f', content: 'x' },
    ]),
  )
  assert.deepEqual(
    entries.map(({ name, size }) => [name, size]),
    [
      ['l', 0],
      ['d/', 0],
      ['f', 1],
    ],
  )
})

test('an old directory is told by its slash', () => {
  assert.equal(read(tar([{ name: 'old/', type: '\0' }]))[0]!.type, 'directory')
  assert.equal(read(tar([{ name: 'old', type: '\0' }]))[0]!.type, 'file')
})

test('what follows the end is ignored, and the end may be missing', () => {
  const file = tarEntry({ name: 'f', content: 'x' })
  assert.equal(read(Buffer.concat([tar([file]), Buffer.from('garbage'.repeat(300))])).length, 1)
  assert.equal(read(file).length, 1)
  assert.equal(read(Buffer.concat([file, Buffer.alloc(512)])).length, 1)
  assert.deepEqual(read(Buffer.alloc(0)), [])
})

test('what is refused, and why', () => {
  const file = tarEntry({ name: 'f', content: 'x' })
  const extended = (content: string) => tar([{ name: 'x', type: 'x', content }, file])
  const refused: Array<[name: string, archive: Buffer, message: RegExp]> = [
    ['garbage', Buffer.alloc(2048, 'garbage'), /no tar archive: wrong checksum in the header at byte 0/],
    ['cut in a header', file.subarray(0, 100), /ends unexpectedly at byte 100/],
    ['cut in the content', file.subarray(0, 512), /ends unexpectedly at byte 512/],
    ['cut in the padding', file.subarray(0, 600), /ends unexpectedly at byte 600/],
    ['cut after an extended header', paxHeader([['path', 'x']]), /ends unexpectedly/],
    ['end after an extended header', tar([paxHeader([['path', 'x']])]), /after an extended header/],
    ['single zero block', Buffer.concat([Buffer.alloc(512), file]), /single zero block/],
    ['GNU sparse', tar([{ name: 's', type: 'S' }]), /sparse file "s"/],
    ['PAX sparse', tar([{ name: 'f', pax: { 'GNU.sparse.major': '1' } }]), /sparse file "f"/],
    ['unknown type', tar([{ name: 'v', type: 'V' }]), /"v" has the unknown type "V"/],
    ['giant extended header', tar([{ name: 'x', type: 'x', claimedSize: 2 ** 20 + 1 }]), /header of 1048577/],
    ['long name', tar([{ name: 'n'.repeat(4097) }]), /name of 4097 bytes/],
    ['long link', tar([{ name: 'f', symlink: 'n'.repeat(4097) }]), /link target of 4097 bytes/],
    [
      'giant attribute',
      tar([{ name: 'f', xattrs: { a: 'v'.repeat(65_537) } }]),
      /65537 bytes, at most 65536/,
    ],
    ['NUL in a name', tar([{ name: 'f', pax: { path: 'a\0b' } }]), /pax path: contains a NUL/],
    ['NUL in an attribute', tar([{ name: 'f', xattrs: { 'user.\0': 'v' } }]), /expected a key/],
    ['size that is none', tar([{ name: 'f', pax: { size: '-1' } }]), /pax size: expected a decimal/],
    ['size beyond 2⁵³', tar([{ name: 'f', pax: { size: '9007199254740993' } }]), /pax size: expected/],
    ['time that is none', tar([{ name: 'f', pax: { mtime: 'now' } }]), /pax mtime: expected seconds/],
    ['short record', extended('5 a=bc\n'), /pax record at byte 0/],
    ['long record', extended('99 a=b\n'), /pax record at byte 0/],
    ['record without key', extended('5 =b\n'), /expected a key/],
    ['record of no length', extended('0 a=b\n'), /pax record at byte 0/],
    ['no number', header(block => block.write('zz', 124)), /size: not a number/],
    ['negative size', header(block => block.fill(0xff, 124, 136)), /size: negative/],
    ['giant size', header(block => block.fill(0x80, 124, 136)), /size: not a number/],
  ]
  for (const [name, archive, message] of refused) {
    for (const piece of [archive.length, 100]) {
      assert.throws(() => read(archive, [piece]), { code: 'invalid', message }, name)
    }
  }
})
