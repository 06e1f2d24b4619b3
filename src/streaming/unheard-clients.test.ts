import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { serveStreams } from '../../test/support/streaming.ts'
import { until } from '../../test/support/wait.ts'

test('a thousand connections that say nothing keep nobody out', async context => {
  const { server } = await serveStreams(context)
  const request = {
    containerId: 'c',
    command: ['true'],
    tty: false,
    stdin: false,
    stdout: true,
    stderr: false,
  }
  const port = Number(new URL(server.exec(request)).port)
  let closed = 0
  const sockets = Array.from({ length: 1000 }, () =>
    connect(port, '127.0.0.1')
      .on('error', () => undefined)
      .on('close', () => closed++)
      .resume(),
  )
  context.after(() => {
    for (const socket of sockets) socket.destroy()
  })
  await until('all but the last are closed', () => closed >= 750)
  const socket = connect(port, '127.0.0.1')
  socket.write('GET /exec/none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
  assert.match(await text(socket), /^HTTP\/1\.1 404/)
})
