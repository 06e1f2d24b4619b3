import { createServer, request } from 'node:http'
import { type AddressInfo, connect } from 'node:net'

/** An HTTP proxy that leads made-up host names to servers of the test. */
export class TestProxy {
  /** `CONNECT host:port` or `GET url`, with the proxy authorization if there was one. */
  readonly requests: string[] = []
  readonly address: string
  readonly #close: () => Promise<void>

  /** @param routes `host:port` by host name; a name that is missing is refused */
  static async start(routes: Readonly<Record<string, string>>): Promise<TestProxy> {
    const server = createServer()
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    const close = async () => {
      const closed = new Promise<void>(resolve => server.close(() => resolve()))
      server.closeAllConnections()
      await closed
    }
    const proxy = new TestProxy(`127.0.0.1:${(server.address() as AddressInfo).port}`, close)
    const note = (line: string, authorization: string | undefined) =>
      proxy.requests.push(authorization === undefined ? line : `${line} ${authorization}`)
    const targetOf = (host: string) => {
      const [name = '', port = ''] = (routes[host] ?? '').split(':')
      return name === '' ? undefined : { host: name, port: Number(port) }
    }
    server.on('connect', (incoming, socket) => {
      note(`CONNECT ${incoming.url}`, incoming.headers['proxy-authorization'])
      const target = targetOf((incoming.url ?? '').split(':')[0] ?? '')
      socket.on('error', () => socket.destroy())
      if (target === undefined) {
        socket.end('HTTP/1.1 502 Bad Gateway\r\n\r\n')
        return
      }
      const through = connect(target, () => socket.write('HTTP/1.1 200 OK\r\n\r\n'))
      through.on('error', () => socket.destroy()).on('close', () => socket.destroy())
      socket.on('close', () => through.destroy())
      through.pipe(socket).pipe(through)
    })
    server.on('request', (incoming, response) => {
      note(`${incoming.method} ${incoming.url}`, incoming.headers['proxy-authorization'])
      const url = new URL(incoming.url ?? '')
      const { 'proxy-authorization': _mine, ...headers } = incoming.headers
      const target = targetOf(url.hostname)
      if (target === undefined) {
        response.writeHead(502).end()
        return
      }
      const onward = request({ ...target, path: url.pathname + url.search, headers }, answer => {
        response.writeHead(answer.statusCode ?? 502, answer.headers)
        answer.pipe(response)
      })
      onward.on('error', () => response.destroy()).end()
    })
    return proxy
  }

  private constructor(address: string, close: () => Promise<void>) {
    this.address = address
    this.#close = close
  }

  close(): Promise<void> {
    return this.#close()
  }
}
