import assert from 'node:assert/strict'
import { once } from 'node:events'
import { duplexPair } from 'node:stream'
import { test } from 'node:test'
import { Refusal, refuse } from './refusal.ts'

test('who is refused gets the answer, and is dropped though it stays and goes on sending', async context => {
  context.mock.timers.enable({ apis: ['setTimeout'] })
  const [client, socket] = duplexPair({ allowHalfOpen: true })
  client.write('sent before it was refused')
  refuse(socket, new Refusal(404, 'not found', { Allow: 'GET' }))
  let answer = ''
  client.on('data', chunk => {
    answer += chunk
  })
  await once(client, 'end')
  assert.match(answer, /^HTTP\/1\.1 404 Not Found\r\nAllow: GET\r\n(.+\r\n)+\r\nnot found\n$/)
  client.write('and behind it')
  await new Promise(setImmediate)
  assert.equal(socket.readableLength, 0, 'what it sends is read and dropped')
  context.mock.timers.tick(9_999)
  assert.equal(socket.destroyed, false)
  context.mock.timers.tick(1)
  assert.equal(socket.destroyed, true)
})

test('who is refused and leaves is gone at once', async () => {
  const [client, socket] = duplexPair({ allowHalfOpen: true })
  refuse(socket, new Refusal(400, 'expected an upgrade'))
  client.resume()
  await once(client, 'end')
  client.end()
  await once(socket, 'close')
})
