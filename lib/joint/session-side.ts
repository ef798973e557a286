/** The session of one attempt: what the handler holds, what is stored of it, and what becomes of its cookie. Knows no HTTP. */
import type { ConfiguredCookie } from '../session/cookie-attributes.js'
import { COOKIE_PART, type CookieWish, type SentCookie, sentCookie } from '../session/cookie-settings.js'
import type { SessionResource } from '../session/resource.js'
import type { MembersSetup } from '../session/session-members.js'
import { type SessionObject, sessionObject } from '../session/session-object.js'
import type { SessionPlan } from '../session/session-plan.js'
import type { WorkingCopy } from '../session/working-copy.js'
import type { CookieChange } from './request.js'

export class SessionSide {
  readonly copy: WorkingCopy
  readonly resource: SessionResource
  /** Another one after `regenerate(callback)`. */
  object: SessionObject
  readonly #cookie: ConfiguredCookie
  readonly #wish: CookieWish = { assigned: false, expires: undefined }

  constructor(copy: WorkingCopy, resource: SessionResource, cookie: ConfiguredCookie, wallNow: () => number) {
    this.copy = copy
    this.resource = resource
    this.#cookie = cookie
    const setup = { cookie, wish: this.#wish, wallNow, renewed: () => this.#renew(setup) }
    this.object = sessionObject(copy, setup)
  }

  #renew(setup: MembersSetup): void {
    this.object = sessionObject(this.copy, setup)
  }

  get change(): CookieChange {
    const { copy, resource } = this
    const plan = resource.committedPlan
    if (plan?.newId !== undefined) return { kind: 'set', id: plan.newId, sent: this.#sent(plan) }
    if (plan?.endsOld === true && !resource.cameTooLate) return { kind: 'clear', sent: this.#sent(plan) }
    // Ended by another request meanwhile: its cookie must not come back over that of a login since then.
    if (copy.opened === undefined || copy.opened.ended) return { kind: 'none' }
    // A cookie that ends by itself must last as long as the session: it is sent again whenever the session moves on.
    const moved = plan !== undefined || resource.touched
    const sent = this.#sent(plan)
    const again = this.#wish.assigned || (sent.maxAge !== undefined && moved)
    return { kind: again ? 'set' : 'kept', id: copy.id, sent }
  }

  /** By what is stored now, without reading it: that would make the attempt depend on it. */
  #sent(plan: SessionPlan | undefined): SentCookie {
    const isWritten = plan?.newId !== undefined || plan?.writes.has(COOKIE_PART) === true
    const stored = isWritten ? plan.writes.get(COOKIE_PART) : this.copy.base.get(COOKIE_PART)
    return sentCookie(this.#cookie, stored?.value, this.#wish)
  }
}
