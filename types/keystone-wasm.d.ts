/** What of `keystone-wasm` is used: its own types are not reachable through its `exports`. */
declare module 'keystone-wasm' {
  export class Keystone {
    constructor(architecture: number, mode: number);
    asm(source: string, options?: { address?: number | bigint }): Uint8Array;
  }
  export function loadKeystone(): Promise<void>;
}
