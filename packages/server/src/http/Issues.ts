/**
 * What is wrong with values that do not fit the contract, in the words of
 * whoever sent them: which field, and what is expected of JSON there. Names of
 * our own schemas are none of theirs. Pure.
 */
import { type SchemaAST, SchemaIssue } from "effect"

export interface Wrong {
  readonly path: ReadonlyArray<PropertyKey>
  readonly message: string
}

/** Values that are named when one of them is expected. */
const valuesNamed = 12

/** What a value of this kind looks like to whoever writes it; undefined where that says nothing. */
const kindOf = (ast: SchemaAST.AST): ReadonlyArray<string> => {
  switch (ast._tag) {
    case "String":
    case "TemplateLiteral":
      return ["text"]
    case "Number":
    case "BigInt":
      return ["a number"]
    case "Boolean":
      return ["true or false"]
    case "Null":
      return ["null"]
    case "Literal":
      return [JSON.stringify(typeof ast.literal === "bigint" ? Number(ast.literal) : ast.literal)]
    case "Arrays":
      return ["a list"]
    case "Objects":
    case "ObjectKeyword":
      return ["an object with fields"]
    case "Union": {
      const kinds = [...new Set(ast.types.flatMap(kindOf))]
      return kinds.length > valuesNamed ? [...kinds.slice(0, valuesNamed), "..."] : kinds
    }
    case "Suspend":
      return kindOf(ast.thunk())
    default:
      return []
  }
}

const expected = (ast: SchemaAST.AST): string => {
  const kinds = kindOf(ast)
  return kinds.length === 0 ? "Expected another value" : `Expected ${kinds.join(" or ")}`
}

const ofLeaf: SchemaIssue.LeafHook = (issue) => {
  switch (issue._tag) {
    case "InvalidType": {
      const message = issue.ast.annotations?.["message"]
      return typeof message === "string" ? message : expected(issue.ast)
    }
    case "MissingKey":
      return "This field is missing"
    case "UnexpectedKey":
      return "There is no such field"
    default:
      return SchemaIssue.defaultLeafHook(issue)
  }
}

const format = SchemaIssue.makeFormatterStandardSchemaV1({ leafHook: ofLeaf })

/** An alternative of which no part came near is a leaf of its own, of all that there may be. */
const withLeaves = (issue: SchemaIssue.Issue): ReadonlyArray<Wrong> => {
  switch (issue._tag) {
    case "AnyOf":
      return issue.issues.length === 0 ? [{ path: [], message: expected(issue.ast) }] : issue.issues.flatMap(withLeaves)
    case "Composite":
      return issue.issues.flatMap(withLeaves)
    case "Encoding":
      return withLeaves(issue.issue)
    case "Pointer":
      return withLeaves(issue.issue).map(({ message, path }) => ({ path: [...issue.path, ...path], message }))
    default:
      return format(issue).issues.map(({ message, path = [] }) => ({
        path: path.map((segment) => (typeof segment === "object" ? segment.key : segment)),
        message
      }))
  }
}

/** Each once. */
export const wrongs = (issue: SchemaIssue.Issue): ReadonlyArray<Wrong> => [
  ...new Map(withLeaves(issue).map((each) => [JSON.stringify([each.path.map(String), each.message]), each])).values()
]
