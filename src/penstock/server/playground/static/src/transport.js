export class Dropped extends Error {
}
