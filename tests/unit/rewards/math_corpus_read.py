"""Labelled pairs about what must be held of a text: (gold, answer) that are the same, and that are not."""

from __future__ import annotations

# One pair a line, gold and answer divided by a bar with two spaces around it. The order does not matter.
_SAME = r"""
\frac{\sqrt{3}}{3}  ‖  \frac{1}{\sqrt{3}}
x \in [-2,7]  ‖  [-2,7]
-2 \le x \le 7  ‖  [-2,7]
\{x|-2\leq x<1\}  ‖  [-2,1)
\{x \mid x > 3\}  ‖  (3,\infty)
(-\infty,1)\cup(2,\infty)  ‖  x<1 \text{ or } x>2
x=1, x=2  ‖  1, 2
x=1 \text{ or } x=2  ‖  \{1,2\}
1 \pm \sqrt{2}  ‖  1+\sqrt{2}, 1-\sqrt{2}
\frac{1\pm\sqrt5}{2}  ‖  \frac{1+\sqrt5}{2},\frac{1-\sqrt5}{2}
-\infty  ‖  -∞
-5  ‖  –5
1e6  ‖  1000000
1000000  ‖  10^6
\text{(A)}  ‖  A
\textbf{(B)}  ‖  B
10\text{ inches}  ‖  10
3\sqrt{2}\text{ cm}  ‖  3\sqrt{2}
0.\overline{3}  ‖  \frac{1}{3}
3:30\text{ p.m.}  ‖  3\!:\!30\text{ p.m.}
3:4  ‖  3 : 4
101_2  ‖  101_{2}
101_{\text{two}}  ‖  101_2
a\equiv 3\pmod{5}  ‖  a \equiv 8 \pmod 5
n\equiv 3\pmod{5}  ‖  n \equiv 3 (mod 5)
5!  ‖  120
\binom{5}{2}  ‖  10
\log_2 8  ‖  3
\sin 30^\circ  ‖  \frac12
e^{i\pi}  ‖  -1
3-2i  ‖  -2i+3
4-\mathrm{i}  ‖  4-i
\frac{\mathrm{d}y}{\mathrm{d}x}=2x  ‖  \frac{dy}{dx} = 2x
x^2+121=0  ‖  121+x^2=0
y=\frac{1}{2}x+3  ‖  y = \frac{x}{2}+3
2x+3y=6  ‖  4x+6y-12=0
x>3  ‖  3<x
2x>6  ‖  x>3
\begin{cases} x, & x>0 \\ -x, & x\le 0 \end{cases}  ‖  \begin{cases} x & x > 0 \\ -x & x \leq 0 \end{cases}
(2, -3, 4)  ‖  \left(2,-3,4\right)
\$5.50  ‖  5.50
5.5  ‖  \$5.50
\text{Evelyn}  ‖  Evelyn
\text{east}  ‖  East
2, 3, \ldots, 10  ‖  2,3,\ldots,10
\int_0^1 x dx  ‖  \int_0^1 x\,dx
7\text{ square units}  ‖  7
25\pi \text{ cm}^2  ‖  25\pi
60\text{ miles per hour}  ‖  60 mph
60  ‖  60\text{ mph}
12345678901234567890  ‖  12,345,678,901,234,567,890
\frac{x^2-1}{x-1}  ‖  x+1
|x-2|  ‖  |2-x|
\ln 8  ‖  3\ln 2
2\log 2  ‖  \log 4
\sqrt[3]{16}  ‖  2\sqrt[3]{2}
20^\circ\text{C}  ‖  20^\circ C
(x+1)(x-1)  ‖  x^2-1
f(x)=2x+1  ‖  2x+1
\mathbb{R}\setminus\{1\}  ‖  (-\infty,1)\cup(1,\infty)
\mathbb{R}  ‖  (-\infty,\infty)
-\frac{3}{4}  ‖  \frac{-3}{4}
33.5\%  ‖  33.5 percent
33.5\%  ‖  33.5\text{ percent}
16386.20  ‖  \$16,\!386.20
\frac{1}{2}, \frac{1}{3}  ‖  1/3, 1/2
x^{2} y  ‖  yx^2
2 \cdot 3^{n}  ‖  2\times 3^n
n(n+1)/2  ‖  \frac{n^2+n}{2}
\vec{v}  ‖  \vec{v}
\overline{AB}  ‖  \overline{AB}
\angle ABC = 30^\circ  ‖  30^\circ
A \cup B  ‖  B\cup A
p \land q  ‖  p \land q
\lfloor 3.7 \rfloor  ‖  3
6 \cdot 7 = 42  ‖  42
\tan^{-1}(1)  ‖  \frac{\pi}{4}
(1, \infty)  ‖  (1,+\infty)
\emptyset  ‖  \{\}
\{(1,2),(3,4)\}  ‖  \{(3,4),(1,2)\}
(1,2),(3,4)  ‖  (3,4), (1,2)
(1,2) \text{ and } (3,4)  ‖  (1,2), (3,4)
1{,}000  ‖  1000
2\frac{1}{2}  ‖  2.5
1/2  ‖  0.5
-1 + sqrt(3)  ‖  \sqrt{3}-1
2**(1/4)  ‖  \sqrt{\sqrt{2}}
3x^2 - 2x  ‖  x(3x-2)
90^\circ  ‖  90
\frac{1}{e}  ‖  e^{-1}
1+\frac{1}{\mathrm{e}}  ‖  \frac{e+1}{e}
12 \text{ hours}  ‖  12
5\text{ cm}^3  ‖  5 cm^3
5\,\text{m/s}  ‖  5 m/s
9.8\,\text{m/s}^2  ‖  9.8 m/s^2
\text{Monday}  ‖  Monday
\text{No solution}  ‖  no solution
x \geq 5  ‖  [5,\infty)
3\mid n  ‖  3 | n
$5$;$10$  ‖  5, 10
20 $cm^{2}$  ‖  20 cm^2
y^{\prime}=y  ‖  y'=y
-\ln|x-2|/4  ‖  -\frac{\ln|x-2|}{4}
(n-2) 2^{n}+1  ‖  1+2^n(n-2)
16 (oranges)  ‖  16
1.5\text{ h}  ‖  90 min
35 million  ‖  35 million
\text{9:00 a.m.}  ‖  9:00 am
\frac{1}{2}\text{ of the time}  ‖  \frac12 \text{ of the time}
\text{all real numbers}  ‖  all real numbers
\left\{\frac{1}{2}\right\}  ‖  \{\frac12\}
\$32,\!348  ‖  32348
32{,}348  ‖  32348
\text{(C)}  ‖  C
C  ‖  (C)
C  ‖  \text{C}
\mathrm{C}  ‖  C
\frac{3\sqrt{3}}{4}  ‖  \frac{3}{4}\sqrt{3}
90^\circ  ‖  90 degrees
90  ‖  90^\circ
(-\infty,-2)\cup(2,\infty)  ‖  x<-2 or x>2
x = \frac{1\pm\sqrt{5}}{2}  ‖  \frac{1+\sqrt{5}}{2}, \frac{1-\sqrt{5}}{2}
y=2x+3  ‖  2x+3
r=2\cos\theta  ‖  r = 2\cos(\theta)
(3,\frac{\pi}{2})  ‖  \left(3,\frac{\pi}{2}\right)
\begin{pmatrix} 1/2 \\ 3 \end{pmatrix}  ‖  \begin{bmatrix} 0.5 \\ 3 \end{bmatrix}
1,\!000,\!000  ‖  10^6
2+3i  ‖  3i+2
\cot x  ‖  \frac{\cos x}{\sin x}
\tan x  ‖  \frac{\sin x}{\cos x}
e^{-x}  ‖  \frac{1}{e^x}
\frac{a+b}{2}  ‖  \frac{1}{2}(a+b)
2^{n+1}  ‖  2\cdot 2^n
n^2+n  ‖  n(n+1)
10\%  ‖  0.1
5.0  ‖  5
1:2:3  ‖  1 : 2 : 3
-x^2+4  ‖  4-x^2
\frac{-1}{x}  ‖  -\frac1x
k \in \mathbb{Z}  ‖  k \in \mathbb{Z}
x=2k\pi, k \in \mathbb{Z}  ‖  x = 2 k \pi, k\in\mathbb{Z}
\left(\frac{3}{5},\frac{8}{3}\right]  ‖  (0.6, 8/3]
[0,\infty)  ‖  \{x \mid x \ge 0\}
x^3+3x-6  ‖  x^{3} + 3x - 6
\dfrac{1}{3}  ‖  \tfrac13
6,8,10  ‖  6, 8, \text{ and } 10
6,8,10  ‖  6, 8 and 10
\text{6, 8, 10}  ‖  6, 8, 10
11\sqrt2  ‖  11\sqrt{2}
8\text{ minutes}  ‖  8 min
\frac{270}7\text{ degrees}  ‖  \frac{270}{7}
.35625  ‖  0.35625
-\$5  ‖  -5
\sqrt{51}  ‖  \sqrt{51}
3^{20}  ‖  3486784401
13,\!535  ‖  13535
\sec x + \tan x  ‖  \tan x+\sec x
f(x) = x^2  ‖  x^2
y' = 2x  ‖  y'=2x
\lim_{x\to 0} f(x)  ‖  \lim_{x \to 0} f(x)
\{1, 2\}  ‖  \{2, 1\}
\emptyset  ‖  \varnothing
\text{Friday}  ‖  friday
\frac{9}{7}  ‖  1\frac{2}{7}
$-\frac{1}{2}$  ‖  -0.5
3.14\times 10^{-5}  ‖  3.14e-5
\text{undefined}  ‖  undefined
2 \text{ and } 3  ‖  2, 3
25\pi\text{ cm}^2  ‖  25 \pi \ \text{cm}^{2}
1.2 \times 10^{3}\text{ J}  ‖  1200 J
300{,}000\text{ km/s}  ‖  300000 \mathrm{km/s}
x \equiv 2 \pmod{7}  ‖  x\equiv 9\ (\text{mod}\ 7)
x \equiv 2 \pmod{7}  ‖  x \equiv 2 \mod 7
0.\overline{27}  ‖  \frac{3}{11}
27_{10}  ‖  27_{10}
4\text{ or }5  ‖  5 or 4
\left| x-3 \right|  ‖  |x-3|
\log_{10} 2  ‖  \lg 2
8!  ‖  40320
\binom{10}{3}  ‖  120
a_1 = 3  ‖  3
\arctan 2  ‖  \tan^{-1} 2
\operatorname{lcm}(4,6)  ‖  12
\gcd(12, 18)  ‖  6
\max(3, 7)  ‖  7
\pi r^2 h  ‖  \pi h r^2
S = 4\pi r^2  ‖  4\pi r^2
3 \frac{1}{4} \text{ cups}  ‖  3.25
5 \text{ feet}  ‖  60 \text{ inches}
"""
_OTHER = r"""
x=5  ‖  y=5
3:4  ‖  4:3
101_2  ‖  101
101_2  ‖  5
a\equiv 3\pmod{5}  ‖  a\equiv 3
3\pmod 5  ‖  3
n\equiv 3\pmod{5}  ‖  3
(1,2)  ‖  [1,2]
(1,2)  ‖  \{1,2\}
\{1,2\}  ‖  (1,2)
[1,2]  ‖  [2,1]
[1,2]  ‖  \{1,2\}
x<3  ‖  x\le 3
x<3  ‖  x>3
x \in [1,2]  ‖  x\in(1,2)
x\in[1,2]  ‖  y \in [1,2]
\sin x  ‖  \cos x
\sin 2x  ‖  2\sin x
\log 2  ‖  \ln 2
\log_2 3  ‖  \log_3 2
\log 100  ‖  2
x^2  ‖  x^3
x_1  ‖  x_2
|x|  ‖  x
f(2)  ‖  2f
f(2)+f(3)  ‖  f(5)
5\text{ cm}  ‖  5\text{ m}
5\text{ cm}^2  ‖  5\text{ cm}^3
12345678901234567890  ‖  12345678901234567891
0.1  ‖  0.10000000000000000001
1+2^{-99}  ‖  1
P(X=1)=0.5  ‖  0.5
\infty  ‖  -\infty
5  ‖  –5
-2  ‖  3–5
2  ‖  5 – 3
\frac{dy}{dx}=2x  ‖  \frac{y}{x}=2x
\$5  ‖  €5
5\%  ‖  5
\frac{1}{2}  ‖  \frac{1}{3}
x=1, y=2  ‖  x=2, y=1
x=1, y=2  ‖  2, 1
x<1 \text{ or } x>3  ‖  x<1 \text{ and } x>3
3:30\text{ p.m.}  ‖  3:30\text{ a.m.}
3:30  ‖  3:31
E  ‖  e
X  ‖  x
5m  ‖  5
2t  ‖  2
3i  ‖  3
3i  ‖  3j
n!  ‖  n
\binom{n}{2}  ‖  \binom{n}{3}
5\text{ apples}  ‖  5\text{ oranges}
third  ‖  three
2nd  ‖  2
(1,2),(3,4)  ‖  (1,3),(2,4)
42  ‖  \{42\}
\{42\}  ‖  42
\pm 2  ‖  2
x \neq 3  ‖  x = 3
A  ‖  B
\begin{pmatrix}1\\2\end{pmatrix}  ‖  \begin{pmatrix}1&2\end{pmatrix}
\begin{vmatrix}1\end{vmatrix}  ‖  \begin{pmatrix}1\end{pmatrix}
\int_0^1 x dx  ‖  \int_0^2 x dx
\sqrt{x^2}  ‖  x
\mathbb{R}  ‖  \mathbb{Z}
42  ‖  4 2
2000  ‖  2 000 0
x(2)  ‖  2x
1A_{16}  ‖  A_{16}
p \land q  ‖  p \lor q
5!  ‖  5
100  ‖  100\text{ thousand}
20^\circ\text{C}  ‖  20^\circ\text{F}
\frac{1}{x}  ‖  x^{-2}
a+b  ‖  a+c
(a,b)  ‖  (b,a)
\sin^{-1} x  ‖  \frac{1}{\sin x}
42  ‖  7 \cdot 6 = 43
42 = 6  ‖  6
\text{Yes}  ‖  \text{No}
x^2=4  ‖  x=2
y'  ‖  y
f'(x)  ‖  f(x)
\vec{v}  ‖  v
\overline{AB}  ‖  AB
\bar{x}  ‖  x
x^T  ‖  x
A \cup B  ‖  A \cap B
\{x \mid x>3\}  ‖  \{x \mid x<3\}
\{n\in\mathbb{Z} | n>3\}  ‖  (3,\infty)
-x  ‖  x
2^{98}  ‖  2^{99}
0.\overline{3}  ‖  0.3
1.5  ‖  1.50001
1e6  ‖  1e7
3\mid n  ‖  3
y=1 \text{ and } y=-1  ‖  y=4 \text{ and } y=-1
x<5 \text{ or } x>3  ‖  x<6 \text{ or } x>3
x<5 \text{ or } x<3  ‖  x<5 \text{ or } x<4
\cos 0 = 1  ‖  \cos(2\pi) = 1
i^{7}=i^{4} \cdot i^{3}  ‖  i^{7}=i^{8} \cdot i^{3}
2**(1/4)  ‖  2
4-\mathrm{i}  ‖  4
(1,250)  ‖  1250
\{1,250\}  ‖  1250
x \in [-2,7]  ‖  7
35 million  ‖  35
5\text{ feet}  ‖  5\text{ meters}
\{1,2,3\}  ‖  (1,2,3)
[1,3]  ‖  1,3
x\equiv 2\pmod{7}  ‖  x\equiv 2\pmod{5}
x\equiv 2\pmod 7  ‖  x=2
x \in \{1,2\}  ‖  x\in (1,2)
\sin^2 x  ‖  \sin x^2
\log_2 x  ‖  \log_3 x
\log x  ‖  \log_2 x
\text{January 5}  ‖  \text{January 6}
3:30  ‖  3.5
3:4  ‖  0.75
3:4  ‖  6:8
10^{100}  ‖  10^{100}+1
x > 5  ‖  x \ge 5
5 < x < 7  ‖  5 < x \le 7
a < b  ‖  a > b
\text{first}  ‖  \text{second}
\text{east}  ‖  \text{west}
\frac{dy}{dx}  ‖  \frac{dx}{dy}
\mathbb{N}  ‖  \mathbb{Z}
p  ‖  q
(2,3]  ‖  [2,3)
\{x \mid x > 3\}  ‖  \{x \mid x \ge 3\}
\{x\in\mathbb{Z}\mid x>3\}  ‖  \{x\in\mathbb{R}\mid x>3\}
0.1+0.2  ‖  0.30000000000000004
9007199254740993  ‖  9007199254740992
1/3  ‖  0.3333333333333333
x^2+y^2=1  ‖  x^2-y^2=1
\begin{cases}x=1\\y=2\end{cases}  ‖  \begin{cases}x=2\\y=1\end{cases}
\sum_{k=1}^{n} k  ‖  \sum_{k=1}^{n} k^2
\int x dx  ‖  \int y dy
5\text{ kg}  ‖  5\text{ lb}
\$5  ‖  5\text{ euros}
£5  ‖  \$5
(x+1)^2  ‖  (x-1)^2
1+i  ‖  1-i
|3+4i|  ‖  3+4i
\overline{z}  ‖  z
\sqrt{2}  ‖  1.41421356
\pi  ‖  3.14159265358979323846
e  ‖  2.718281828
\pm 3  ‖  3
\mp 3+5  ‖  5+3
n \mid 12  ‖  12 \mid n
x \notin A  ‖  x \in A
A \subset B  ‖  B \subset A
a \perp b  ‖  a \parallel b
2\text{ or }3  ‖  2
x=1\text{ or }x=2  ‖  x=1
f(1)=2  ‖  f(2)=1
a_1=3  ‖  a_2=3
x_1 = 3  ‖  y_1 = 3
\text{(A)}  ‖  \text{(B)}
7.5  ‖  7.05
1,234  ‖  1.234
12{,}345  ‖  (12,345)
-3  ‖  3
100  ‖  100\%
100  ‖  100_2
5\text{ hundred}  ‖  5
2\text{ dozen}  ‖  2
3\text{ million}  ‖  3
m^2  ‖  m
5^\circ  ‖  5'
\lfloor x \rfloor  ‖  \lceil x \rceil
[x]  ‖  \{x\}
\binom{5}{2}  ‖  \frac{5}{2}
\frac{5}{2}  ‖  5:2
n!  ‖  n
(n+1)!  ‖  n!+1
2x  ‖  x^2
x^{-1}  ‖  -x
\arcsin x  ‖  \frac{1}{\sin x}
\cos^{-1} x  ‖  \cos x
\det A  ‖  A
\vec{a}  ‖  \vec{b}
\angle A = 30  ‖  \angle B = 30
AB = 5  ‖  AC = 5
P(A \cup B)  ‖  P(A \cap B)
P(A|B)  ‖  P(B|A)
P(A) = 0.3  ‖  P(B) = 0.3
x<3, y>2  ‖  y<3, x>2
3  ‖  3\pmod 7
\text{true}  ‖  \text{false}
1\frac{1}{2}  ‖  \frac{11}{2}
2^{3^2}  ‖  64
-2^2  ‖  4
\text{3 apples and 2 oranges}  ‖  \text{2 apples and 3 oranges}
"""


def _pairs(block: str) -> list[tuple[str, str]]:
    return [tuple(line.split("  ‖  ")) for line in block.strip().splitlines()]  # type: ignore[misc]


SAME, OTHER = _pairs(_SAME), _pairs(_OTHER)

# Gold, completion (\\n is a new line), whether it is paid.
_CLAIMS = r"""
42|\boxed{42}. Check: 6*7 = 42, correct.|1
42|\boxed{42} Wait, let me double-check: 6*7 = 42. Yes, that is correct.|1
42|\boxed{42} Wait, let me check: 6*7 = 43. Yes, correct.|0
42|\boxed{42} Let me verify: 6*7=42 ✓|1
42|\boxed{42} Hmm, let me verify. 6·7 is 42. Confirmed.|1
42|\boxed{42}. So the answer is correct.|1
42|\boxed{42} Wait, actually it should be 43. Yes, correct.|0
42|\boxed{42} 验证：6*7=42，正确。|1
42|\boxed{42}\n\n**Verification:** 42 / 7 = 6, which matches.|1
C|答案选C|1
C|所以答案选 C。|1
C|故选C.|1
C|正确选项是C|1
C|故选：C|1
C|综上，应选(C)|1
B|答案选C|0
C|答案选C或D|0
C|答案不选C|0
42|I will put the answer in \boxed{}. So \boxed{42}.|1
42|The answer goes in \boxed{\text{answer}}: \boxed{42}|1
42|\boxed{41} \boxed{} \boxed{42}|0
28|Final Answer: The final answer is $28$. I hope it is correct.|1
\frac{1}{2}|Final Answer: The final answer is $\frac{1}{2}$. I hope it is correct.|1
27|Final Answer: The final answer is $28$. I hope it is correct.|0
28|Final Answer: The final answer is $28$ or $27$. I hope it is correct.|0
28|The final answer is $\boxed{28}$. I hope it is correct.|1
42|The answer is #### 42|1
42|#### 42\n|1
42|### Final Answer\n42|1
42|**Final Answer**\n\n$42$|1
42|## Answer:\n\\[42\\]|1
B|The correct option is B.|1
B|The correct answer is (B).|1
B|The correct option is not B.|0
42|The answer is 42 because 6*7 = 42.|1
42|The answer is 42, since 6*7 = 42.|1
42|Thus, 42.|1
-\infty|\boxed{-∞}|1
-5|\boxed{–5}|1
1000000|\boxed{1e6}|1
x^2|\boxed{x²}|1
42|The answer is nоt 42|0
42|ΔABC has αβ. \boxed{42}|1
5|speed v = 5 mμ \boxed{5}|1
42|The answer is $42$, but it might be 43.|0
42|The answer is: $$42$$|1
42|Answer: \(42\)|1
42|**Answer: 42**|1
42|**Answer:** **42**|1
42|The answer is **42**.|1
42|The answer is 42. Wait, no, 43.|0
42|My final answer: 42|1
42|Final answer = 42|1
1.5|The answer is 1.5.|1
18|She makes 9*2 = 18 dollars.\n#### 18|1
1319|#### 1,319|1
18|#### $18|1
42|The answer is 42 or 43.|0
42|The answer is 41. Just kidding. \n The answer is 42|0
42|\boxed{42} is the answer, not 43.|1
42|\boxed{42} is not the answer|0
\text{Evelyn}|\boxed{\text{Evelyn}}|1
42|The answer (in cm) is 42|0
4|In \boxed{\phantom{2}} + 3 = 7 it is \boxed{4}.|1
10|It is \boxed{10}. Alternatively, we can count them one by one, which gives 10.|1
10|It is \boxed{10}. Alternatively, we can say 11.|0
9|The change Δx is 3. \boxed{9}|1
9\pi|A = πr², so \boxed{9\pi}|1
5|length 5 μm: \boxed{5}|1
5|Either way, the answer is \boxed{5}.|1
5|In either case we get \boxed{5}.|1
5|It is either 4 or \boxed{5}.|0
5|Without a doubt, it is \boxed{5}.|1
5|I doubt it: \boxed{5}|0
5|It is \boxed{5}, regardless of whether x is 1 or 2.|1
5|It is \boxed{5} or 6.|0
7|We get \boxed{7}, which is not even.|1
7|We get \boxed{7}, which is not the answer.|0
7|We get \boxed{7}, which is wrong.|0
7|\boxed{7} is not right.|0
5|\boxed{\text{The answer is } 5}|1
5|\boxed{\text{not } 5}|0
"""


def claims() -> list[tuple[str, str, bool]]:
    """Whole completions: gold, completion, right."""
    rows = [line.split("|") for line in _CLAIMS.strip().splitlines()]
    return [(gold, text.replace("\\n", "\n").replace("\\\\", "\\"), paid == "1") for gold, text, paid in rows]
