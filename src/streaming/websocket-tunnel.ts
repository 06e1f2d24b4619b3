import { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import { BerthError, messageOf } from '../base/errors.ts'
import { Flow } from './flow.ts'

/**
 * The messages of a WebSocket as one stream of bytes; where one message ends and another begins means nothing. Ending
 * it is the close code that says that all went well.
 *
 * @param socket the one below `ws`
 */
export function websocketTunnel(ws: WebSocket, socket: Duplex): Duplex {
  const flow = new Flow(socket, ws)
  const send = (chunks: readonly Buffer[], done: (error?: Error) => void) => {
    if (ws.readyState !== ws.OPEN) {
      done(new Error('the WebSocket is closed'))
      return
    }
    socket.cork()
    for (const chunk of chunks) ws.send(chunk)
    socket.uncork()
    flow.afterWrite(done)
  }
  const tunnel = new Duplex({
    write: (chunk, _, done) => send([chunk], done),
    writev: (chunks, done) =>
      send(
        chunks.map(({ chunk }) => chunk),
        done,
      ),
    final: done => {
      // A closing handshake has a time limit; it is not to begin before everything is with the kernel.
      socket.write(Buffer.alloc(0), () => {
        ws.close(1000)
        done()
      })
    },
    read: () => flow.release(tunnel),
    destroy: (error, done) => {
      ws.terminate()
      done(error)
    },
  })
  let broken: BerthError | undefined
  ws.on('message', (data, isBinary) => {
    if (broken !== undefined) return
    if (!isBinary) {
      broken = new BerthError('invalid', 'WebSocket: a text message, expected binary ones')
      ws.close(1003)
    } else if (!tunnel.push(data)) flow.hold(tunnel)
  })
  ws.on('ping', data => {
    ws.pong(data)
    flow.afterControl()
  })
  ws.on('error', error => tunnel.destroy(new BerthError('invalid', `WebSocket: ${messageOf(error)}`, error)))
  ws.on('close', () => {
    flow.close()
    tunnel.destroy(broken)
  })
  return tunnel
}
