/** Writes tar archives of any shape, right or wrong, from plain descriptions. */

export type Bytes = string | Buffer

export type TarFixture = {
  /** Text is written as UTF-8. Up to 100 bytes stand in the header, more in a PAX record. */
  readonly name: Bytes
  /** Type flag; default '0' with content, '1' with `link`, '2' with `symlink`, '5' for a name ending in a slash. */
  readonly type?: string
  readonly content?: Bytes
  readonly link?: Bytes
  readonly symlink?: Bytes
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  /** Seconds since 1970, default 1 700 000 000. */
  readonly mtime?: number
  readonly major?: number
  readonly minor?: number
  readonly xattrs?: Readonly<Record<string, Bytes>>
  /** Further PAX records, in front of the entry. */
  readonly pax?: Readonly<Record<string, Bytes>>
  /** What the header's size field says, if not the length of the content. */
  readonly claimedSize?: number
}

const END = Buffer.alloc(1024)

/** A whole archive. Buffers among the entries are put in as they are. */
export function tar(entries: ReadonlyArray<TarFixture | Buffer>): Buffer {
  return Buffer.concat([...entries.map(entry => (Buffer.isBuffer(entry) ? entry : tarEntry(entry))), END])
}

/** The blocks of one entry, its PAX header included. */
export function tarEntry(entry: TarFixture): Buffer {
  const content = Buffer.from((entry.content as string | undefined) ?? '')
  const target = bytes(entry.link ?? entry.symlink ?? '')
  const name = bytes(entry.name)
  const records: Array<[key: string, value: Bytes]> = []
  if (name.length > 100) records.push(['path', name])
  if (target.length > 100) records.push(['linkpath', target])
  for (const id of ['uid', 'gid'] as const) {
    if ((entry[id] ?? 0) > 0o7777777) records.push([id, String(entry[id])])
  }
  for (const [key, value] of Object.entries(entry.xattrs ?? {})) records.push([`SCHILY.xattr.${key}`, value])
  records.push(...Object.entries(entry.pax ?? {}))
  const header = tarBlock(block => {
    name.copy(block, 0, 0, 100)
    octal(block, 100, 8, entry.mode ?? (typeOf(entry) === '5' ? 0o755 : 0o644))
    octal(block, 108, 8, (entry.uid ?? 0) & 0o7777777)
    octal(block, 116, 8, (entry.gid ?? 0) & 0o7777777)
    octal(block, 124, 12, entry.claimedSize ?? content.length)
    octal(block, 136, 12, entry.mtime ?? 1_700_000_000)
    block.write(typeOf(entry), 156, 'latin1')
    target.copy(block, 157, 0, 100)
    octal(block, 329, 8, entry.major ?? 0)
    octal(block, 337, 8, entry.minor ?? 0)
  })
  const pax = records.length === 0 ? [] : [paxHeader(records)]
  return Buffer.concat([...pax, header, padded(content)])
}

/** An extended header for the entry after it. */
export function paxHeader(records: ReadonlyArray<readonly [key: string, value: Bytes]>): Buffer {
  const body = Buffer.concat(records.map(([key, value]) => paxRecord(key, value)))
  return tarEntry({ name: 'PaxHeaders/entry', type: 'x', content: body })
}

/** `<length> <key>=<value>` and a newline, where the length counts itself. */
function paxRecord(key: string, value: Bytes): Buffer {
  const body = Buffer.concat([Buffer.from(` ${key}=`), bytes(value), Buffer.from('\n')])
  let length = body.length + 1
  while (String(length).length + body.length !== length) length++
  return Buffer.concat([Buffer.from(String(length)), body])
}

/** A header block with a right checksum over whatever `write` puts there; ustar magic is set before. */
export function tarBlock(write: (block: Buffer) => void): Buffer {
  const block = Buffer.alloc(512)
  block.write('ustar\x0000', 257, 'latin1')
  write(block)
  block.fill(0x20, 148, 156)
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return block
}

function typeOf(entry: TarFixture): string {
  if (entry.type !== undefined) return entry.type
  if (entry.link !== undefined) return '1'
  if (entry.symlink !== undefined) return '2'
  return bytes(entry.name).at(-1) === 0x2f ? '5' : '0'
}

function octal(block: Buffer, offset: number, length: number, value: number): void {
  block.write(`${value.toString(8).padStart(length - 1, '0')}\0`, offset, 'latin1')
}

function padded(content: Buffer): Buffer {
  return Buffer.concat([content, Buffer.alloc((512 - (content.length % 512)) % 512)])
}

function bytes(value: Bytes): Buffer {
  return typeof value === 'string' ? Buffer.from(value) : value
}
