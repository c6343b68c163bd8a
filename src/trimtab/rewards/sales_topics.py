"""What customers of a sales team ask about, and the words that answers to it are made of.

General words of the trade in Chinese and English, none of them about one product. Patterns are regular
expressions on cleaned lower-case text; a word of an answer counts only where the customer did not write it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

_TOPICS: dict[str, tuple[str, str]] = {
    "price": (
        r"多少钱|价格|价目|报价|收费|怎么卖|贵不贵|费用|单价|开销|\b(?:how much|costs?|prices?|fees?)\b",
        r"\d元|\d块|[年月]付|按[年月季人]|计价|收费|费用|报价|单价|另收|优惠|划|合算|回本|包含|加减|几个买几个"
        r"|\byuan\b|\byearly\b|\bfees?\b|\bquote\b|\bincluded\b|\bdiscount",
    ),
    "budget": (
        r"预算|便宜|打.{0,2}折|优惠|成本|没多少钱|钱不够|太贵|偏高|用不起|资金|分期|批了一半"
        r"|\bbudget\b|\bmoney\b|\bdiscount\b|\bafford\b|\bfunds\b|\bcheaper way\b",
        r"分期|按[月季年]|块钱|拿出来|压力|基础版|够用|不需要|需要的|先[买开上选付]|省下|抵掉|回本|锁定|补付|便宜|划"
        r"|\binstal|\bquarter\b|\bbasic\b|\byuan\b|\bless than\b|\bseats\b",
    ),
    "competitor": (
        r"[和跟与].{1,9}(?:比|二选一|放一起)|对比|区别|不一样|强在|更便宜|更好用|比.{2,8}好用|让我换|换到|转到|用惯|也有"
        r"|\bdifferent\b|\bcheaper\b|\bchoose\b|\bcompare\b",
        r"各有|各家|别家|两家|两边|专注|专门|只做|同类|转来|换过来|换系统|迁移|搬过来|并排|场景|打通|连上|二次开发"
        r"|\bstrengths\b|\bside by side\b|\bone job\b|\bconnects\b|\bgood tool\b",
    ),
    "doubt": (
        r"没想好|犹豫|考虑考虑|拿不准|有必要|没用起来|先不定|再看看|下不了决心|动摇|没底|拖着|退堂鼓|意见不一|适合我们"
        r"|\bnot sure\b|\bhesitate\b|\bnobody used\b|\bputting off\b|\bholds me\b",
        r"着急|不用马上|慢慢|小范围|小组|先挑|手把手|带着用|陪跑|学会|随时停|就停|退给|扣钱|免费|顾虑|犹豫|踏实|推开"
        r"|\brush\b|\byour time\b|\bsmall group\b|\bcoach\b|\bwalk you\b|\btest it\b",
    ),
    "approval": (
        r"老板|领导|审批|[跟给]老板汇报|过会|要.{0,3}批|拍板|做不了主|立项|董事会|说服|签字|总部|汇报的思路"
        r"|\bboss\b|\bmanager\b|\bapproval\b|\bboard\b",
        r"汇报|材料|模板|说明|投入产出|算笔账|账很|回本|案例|同行|一起开|领导|资质|合规|答疑|先批|分步|风险|追加"
        r"|\bone page\b|\bpays back\b|\bsimilar firm\b|\bmeeting\b|\bsummary\b",
    ),
    "integration": (
        r"对接|接得上|打通|接口|api|同步|连起来|互通|孤岛|接进来|\bconnect\b|\bsync\b|\bfit in\b|\bintegrat",
        r"打通|原生|对接|授权|写代码|接口|文档|同步|录入|工程师|技术群|联调|配置|沙箱|测试环境|切正式|老系统"
        r"|\bconnects\b|\bapi\b|\bsyncs\b|\breal time\b|\bboth ways\b|\bconnection takes\b",
    ),
    "trial": (
        r"试用|先用用|试一下|体验|测试账号|上手|\btry\b|\btrial\b|\bhands on\b",
        r"\d天|绑卡|扣费|收费|功能|保留|录的|都留着|一直在|开通账号|开好账号|手机号|样例|真实|指导|答疑|全程"
        r"|\bfree for\b|\bcard\b|\bcharge\b|\bdata stays\b|\breal work\b",
    ),
    "complaint": (
        r"老是卡|出错|问题一大堆|没人理|没人处理|掉线|出?故障|投诉|给个说法|难用|打不开|退了|不满|生气|失望|毛病|耽误"
        r"|拖了|\bcrash|\bnever answers\b|\bangry\b|\bfailed\b|\boutage\b|\bdisaster\b",
        r"抱歉|对不起|歉意|排查|原因|日志|补偿|顺延|退款|跟进|专人|负责到底|截图|报错|工程师|定位|答复"
        r"|\bsorry\b|\bapologi|\bcause\b|\blogs\b|\bcredit\b|\brefund\b|\bengineer\b",
    ),
    "delivery": (
        r"多久能[上用]|几天|上线|交付|装好|月底前|实施|周期|停工|落地"
        r"|\bgo live\b|\bset up\b|\bdelivered\b|\bfirst use\b|\bhow soon\b|\bhurry\b",
        r"\d天|上线|三步|先配置|确认单|接口人|配合|停工|并行|切换|项目经理|实施顾问|加急|延期|进度|交付"
        r"|\bdays\b|\bsteps\b|\bone contact\b|\bdowntime\b|\bkeeps running\b",
    ),
    "contract": (
        r"合同|条款|解约|签多久|签几年|只签|专票|对公|协议|违约|法务|\bcontract\b|\bcancel\b|\bterms\b|\bagreement\b",
        r"\d个月|起签|到期可续|期满|解约|终止|剩余费用|发票|专票|入账|转账|范本|电子版|批注|修订|违约|赔付|责任|不变|涨价|白纸"
        r"|\bmonths\b|\bcancel\b|\bnotice\b|\bdraft\b|\bfixed\b",
    ),
    "service": (
        r"售后|出问题|找谁|(?<!教育)培训|人教|给不给教|不会用|客服.{0,4}[点上在]|升级|维护|不管了|有人管|还会跟进|有人响应"
        r"|\bsupport comes\b|\bhelps\b|\btrain\b|\blook after\b",
        r"响应超时|\d小时|专属|客户经理|客服|培训|课程|教会|免费升级|更新|回访|体检|隐患|服务标准|超时|有据"
        r"|\breplies\b|\bown manager\b|\btraining\b|\bupdates\b",
    ),
    "security": (
        r"安全|泄露|能看到|存在哪|认证|等保|私有化|本地部署|敏感|服务器|被黑|导走|权限|隐私|保护|带走"
        r"|\bsafe\b|\bstore data\b|\bsecurity\b|\bcertificate\b|\bwalk away\b",
        r"通过了|证书|复审|加密|授权打|看不到|权限|水印|记录|备份|恢复|机房|内网|部署|保密|所有权|删除|收回"
        r"|\bencrypted\b|\bbackup\b|\blogged\b|\baccess\b|\bdelete\b|\byours\b",
    ),
    "renewal": (
        r"续费|续约|续不续|不续|续.{0,6}政策|到期|去年买|老客户|服务期|再签|继续用"
        r"|\brenew|\bexpires\b|\byear is over\b",
        r"老客户|老价格|涨价|加送|送一个季度|减账号|闲置|停掉|用多少|用量|使用报告|复盘|导出|保留|取走|重新培训|新功能"
        r"|\bsame price\b|\bextra months\b|\bdrop seats\b|\bidle\b|\busage\b",
    ),
    "plan": (
        r"几个账号|版本|标准版|高级版|套餐|最少买|人数|账号怎么|加账号|都要买|共用|名额|一档|撑得住"
        r"|\bplan\b|\bhow many seats\b|\bneed a seat\b|\beach one\b",
        r"\d个账号|标准版|高级版|随时加|扩容|重新部署|当天生效|只读|不占|少买|分公司|分组|部门|真正要用|岗位|总人数"
        r"|\d seats\b|\bstandard plan\b|\badd seats\b|\bread only\b|\benough for\b",
    ),
}
_PATTERNS = {key: (re.compile(ask), re.compile(say)) for key, (ask, say) in _TOPICS.items()}
_DIGIT = re.compile(r"\d")
MAX_ASKED = 3


@lru_cache(maxsize=1024)
def asked_topics(prompt: str) -> tuple[str, ...]:
    """The topics that a cleaned prompt asks about, most words first; empty when none is known.

    Example:
        >>> asked_topics("签之前想看看合同条款。")
        ('contract',)
    """
    lowered = prompt.lower()
    counts = {key: len(set(ask.findall(lowered))) for key, (ask, _) in _PATTERNS.items()}
    found = sorted((key for key, count in counts.items() if count), key=lambda key: -counts[key])
    return tuple(found[:MAX_ASKED])


def topic_words(text: str, prompt: str, topics: Iterable[str]) -> set[str]:
    """The words of an answer to any of ``topics`` in ``text`` that the customer did not write."""
    asked, found = _DIGIT.sub("0", prompt.lower()), _words_of(text.lower())
    return {word for topic in topics for word in found.get(topic, ()) if word not in asked}


@lru_cache(maxsize=4096)
def _words_of(lowered: str) -> dict[str, frozenset[str]]:
    """The words of each topic in one sentence; 2小时 and 8小时 are one word."""
    found = {
        topic: frozenset(_DIGIT.sub("0", m.group()) for m in say.finditer(lowered))
        for topic, (_, say) in _PATTERNS.items()
    }
    return {topic: words for topic, words in found.items() if words}


def other_words(text: str, prompt: str, topics: Sequence[str]) -> set[str]:
    """The words of answers to what was not asked; a part of a word for what was is none."""
    own = topic_words(text, prompt, topics)
    return {word for word in topic_words(text, prompt, _PATTERNS) if not any(word in one for one in own)}
