/** What a principal may claim, as text in the database. */
import { IpNetwork } from "effect/net"
import type { DomainName } from "../domain/DomainName.ts"
import type { Grant } from "./Principal.ts"

/** A grant as JSON can hold it; what is not there is not limited. */
export interface Plain {
  readonly zones?: ReadonlyArray<DomainName>
  readonly names?: ReadonlyArray<string>
  readonly networks: ReadonlyArray<string>
  readonly namesMax?: number
}

export const toPlain = ({ names, namesMax, networks, zones }: Grant): Plain => ({
  ...(zones !== undefined && { zones }),
  ...(names !== undefined && { names }),
  networks: networks.map(IpNetwork.format),
  ...(namesMax !== undefined && { namesMax })
})

export const encode = (grant: Grant): string => JSON.stringify(toPlain(grant))

/** Reads what `encode` wrote. */
export const decode = (text: string): Grant => {
  const { names, namesMax, networks, zones } = JSON.parse(text) as Plain
  return {
    zones,
    names,
    networks: networks.map(IpNetwork.fromStringUnsafe),
    namesMax
  }
}
