import assert from 'node:assert/strict'
import { test } from 'node:test'
import { proxyFor } from './proxy.ts'

test('which requests go through a proxy', () => {
  const noProxy =
    'intern.example.com, .svc ,10.0.0.0/8,192.168.1.7,lab.example.com:5000,fd00::/16,*.wild.example.com,bad/99'
  const settings = { http: 'http://p:3128', https: 'secure-p:3129', noProxy }
  const cases: ReadonlyArray<[url: string, proxy: string | undefined]> = [
    ['https://quay.io/', 'http://secure-p:3129'],
    ['http://quay.io/', 'http://p:3128'],
    ['https://intern.example.com/', undefined],
    ['https://a.intern.example.com/', undefined],
    ['https://notintern.example.com/', 'http://secure-p:3129'],
    ['https://registry.svc/', undefined],
    ['https://svc/', 'http://secure-p:3129'],
    ['https://10.1.2.3/', undefined],
    ['https://11.1.2.3/', 'http://secure-p:3129'],
    ['https://192.168.1.7/', undefined],
    ['https://lab.example.com:5000/', undefined],
    ['https://lab.example.com/', 'http://secure-p:3129'],
    ['https://[fd00::1]/', undefined],
    ['https://[fd01::1]/', 'http://secure-p:3129'],
    ['https://a.wild.example.com/', undefined],
    ['http://127.0.0.1:5000/', undefined],
    ['http://localhost:5000/', undefined],
    ['http://[::1]:5000/', undefined],
  ]
  for (const [url, proxy] of cases) assert.equal(proxyFor(new URL(url), settings), proxy, url)
  assert.equal(proxyFor(new URL('https://quay.io'), { ...settings, noProxy: '*' }), undefined)
  assert.equal(proxyFor(new URL('https://quay.io'), { http: 'x', https: '', noProxy: '' }), undefined)
})
